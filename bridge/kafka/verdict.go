package kafka

import (
	"errors"

	"github.com/IBM/sarama"

	"gantry/bridge"
)

// verdict is what an answer means for a batch.
type verdict uint8

const (
	settled  verdict = iota // it is in the log
	unknown                 // it may or may not be in the log: send the same again
	rejected                // it is not in the log and will never be taken as it is
	disowned                // it is not in the log because the broker does not know our numbers
)

func judge(err error) verdict {
	var code sarama.KError
	if err == nil {
		return settled
	}
	if !errors.As(err, &code) {
		return unknown
	}
	switch code {
	case sarama.ErrNoError, sarama.ErrDuplicateSequenceNumber:
		return settled
	case sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge, sarama.ErrInvalidRecord,
		sarama.ErrPolicyViolation, sarama.ErrInvalidTimestamp, sarama.ErrUnsupportedForMessageFormat:
		return rejected
	case sarama.ErrOutOfOrderSequenceNumber, sarama.ErrUnknownProducerID, sarama.ErrInvalidProducerEpoch,
		sarama.ErrInvalidProducerIDMapping, sarama.ErrProducerFenced:
		return disowned
	}
	return unknown
}

// lasting marks an error that an operator has to cure.
func lasting(err error) error {
	for _, code := range []sarama.KError{
		sarama.ErrSASLAuthenticationFailed, sarama.ErrUnsupportedSASLMechanism, sarama.ErrTopicAuthorizationFailed,
		sarama.ErrClusterAuthorizationFailed, sarama.ErrUnsupportedCompressionType,
	} {
		if errors.Is(err, code) {
			return bridge.Permanent(err)
		}
	}
	return err
}
