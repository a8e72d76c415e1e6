package httppush

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func TestEveryReasonHasACode(t *testing.T) {
	for _, r := range broker.Reasons() {
		c, ok := codes[r]
		require.True(t, ok, "no row for %v", r)
		require.NotEmpty(t, http.StatusText(c.status), r)
		require.NotEmpty(t, c.name, r)
		require.Equal(t, r.OK(), c.status < 300, "%v: a success must look like one and nothing else may", r)
		require.Equal(t, r.OK(), c.mqtt < 0x80, r)
	}
	require.Len(t, codes, len(broker.Reasons()))
	require.Equal(t, codes[broker.Unspecified], codeOf(255))
}

func TestProblemServesBothKindsOfClient(t *testing.T) {
	p := refuse(broker.InvalidTopic, "topic is empty").problem()
	require.Equal(t, problem{
		Type: "about:blank", Title: "Bad Request", Status: 400, Detail: "topic is empty",
		ReasonCode: 144, Code: "BAD_REQUEST", Message: "topic_name_invalid",
	}, p)
	p = fail(http.StatusUnsupportedMediaType, "no").problem()
	require.Equal(t, "UNSUPPORTED_MEDIA_TYPE", p.Code)
	require.Equal(t, "no", p.Message)
	require.Zero(t, p.ReasonCode)
}

func TestRetryAfter(t *testing.T) {
	require.Equal(t, 1, refuse(broker.ServerBusy, "").retryAfter())
	require.Equal(t, 1, refuse(broker.QuotaExceeded, "").retryAfter())
	require.Equal(t, 5, refuse(broker.ShuttingDown, "").retryAfter())
	require.Zero(t, refuse(broker.NotAuthorized, "").retryAfter())
	require.Zero(t, badRequest("").retryAfter())
}
