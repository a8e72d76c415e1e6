package httppush

import (
	"net/http"

	"gantry/broker"
)

// code is how a Reason looks on the wire.
type code struct {
	status int    // HTTP status
	mqtt   int    // MQTT 5 reason code, the member reason_code
	name   string // EMQX's name of that reason code, the member message
}

// codes has a row for every Reason; a test checks that.
var codes = map[broker.Reason]code{
	broker.Success:                {http.StatusOK, 0x00, "success"},
	broker.NoSubscribers:          {http.StatusAccepted, 0x10, "no_matching_subscribers"}, // the status of /api/v5; /v1 has its own
	broker.NoSubscriptionExisted:  {http.StatusOK, 0x11, "no_subscription_existed"},
	broker.Unspecified:            {http.StatusInternalServerError, 0x80, "unspecified_error"},
	broker.Malformed:              {http.StatusBadRequest, 0x81, "malformed_packet"},
	broker.ProtocolError:          {http.StatusBadRequest, 0x82, "protocol_error"},
	broker.ImplementationError:    {http.StatusUnprocessableEntity, 0x83, "implementation_specific_error"},
	broker.UnsupportedVersion:     {http.StatusBadRequest, 0x84, "unsupported_protocol_version"},
	broker.InvalidClientID:        {http.StatusBadRequest, 0x85, "client_identifier_not_valid"},
	broker.BadCredentials:         {http.StatusUnauthorized, 0x86, "bad_username_or_password"},
	broker.NotAuthorized:          {http.StatusForbidden, 0x87, "not_authorized"},
	broker.ServerUnavailable:      {http.StatusServiceUnavailable, 0x88, "server_unavailable"},
	broker.ServerBusy:             {http.StatusServiceUnavailable, 0x89, "server_busy"},
	broker.Banned:                 {http.StatusForbidden, 0x8A, "banned"},
	broker.ShuttingDown:           {http.StatusServiceUnavailable, 0x8B, "server_shutting_down"},
	broker.BadAuthMethod:          {http.StatusUnauthorized, 0x8C, "bad_authentication_method"},
	broker.KeepAliveTimeout:       {http.StatusServiceUnavailable, 0x8D, "keepalive_timeout"},
	broker.TakenOver:              {http.StatusConflict, 0x8E, "session_taken_over"},
	broker.InvalidFilter:          {http.StatusBadRequest, 0x8F, "topic_filter_invalid"},
	broker.InvalidTopic:           {http.StatusBadRequest, 0x90, "topic_name_invalid"},
	broker.PacketIDInUse:          {http.StatusConflict, 0x91, "packet_identifier_inuse"},
	broker.PacketIDNotFound:       {http.StatusNotFound, 0x92, "packet_identifier_not_found"},
	broker.ReceiveMaximumExceeded: {http.StatusTooManyRequests, 0x93, "receive_maximum_exceeded"},
	broker.InvalidAlias:           {http.StatusBadRequest, 0x94, "topic_alias_invalid"},
	broker.PacketTooLarge:         {http.StatusRequestEntityTooLarge, 0x95, "packet_too_large"},
	broker.RateTooHigh:            {http.StatusTooManyRequests, 0x96, "message_rate_too_high"},
	broker.QuotaExceeded:          {http.StatusTooManyRequests, 0x97, "quota_exceeded"},
	broker.Administrative:         {http.StatusForbidden, 0x98, "administrative_action"},
	broker.InvalidPayload:         {http.StatusBadRequest, 0x99, "payload_format_invalid"},
	broker.RetainNotSupported:     {http.StatusBadRequest, 0x9A, "retain_not_supported"},
	broker.QoSNotSupported:        {http.StatusBadRequest, 0x9B, "qos_not_supported"},
	broker.Closed:                 {http.StatusServiceUnavailable, 0x8E, "session_taken_over"}, // a repeat opens a new session
}

// codeOf never fails: a Reason without a row is a fault of this server.
func codeOf(r broker.Reason) code {
	if c, ok := codes[r]; ok {
		return c
	}
	return codes[broker.Unspecified]
}
