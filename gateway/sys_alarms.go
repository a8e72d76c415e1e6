package gateway

import (
	"encoding/json"
	"time"

	"gantry/broker"
	"gantry/gateway/admin"
)

// alarm publishes that an alarm was raised or cleared, in the form of EMQX. It
// is not retained: what is active now is in the status.
func (s *sysTopics) alarm(al admin.Alarm, active bool) {
	topic := "$SYS/brokers/" + s.node + "/alarms/deactivate"
	event := alarmEvent{Name: al.Name, Message: al.Detail, ActivateAt: al.Since.UnixMicro(), DeactivateAt: "infinity", Activated: active}
	if active {
		topic = "$SYS/brokers/" + s.node + "/alarms/activate"
	} else {
		event.DeactivateAt = time.Now().UnixMicro()
	}
	payload, err := json.Marshal(&event)
	if err != nil {
		return
	}
	s.publish(&broker.Message{Topic: topic, Payload: payload})
}

// alarmEvent has the fields of EMQX; times are Unix microseconds.
type alarmEvent struct {
	Name         string   `json:"name"`
	Message      string   `json:"message"`
	Details      struct{} `json:"details"`
	ActivateAt   int64    `json:"activate_at"`
	DeactivateAt any      `json:"deactivate_at"` // "infinity" while it is active
	Activated    bool     `json:"activated"`
}
