// Package mqtt is the MQTT client of gantry pub and gantry sub: one connection, no reconnect, MQTT 5 or 3.1.1. It wraps two libraries that share no
// code with the gateway, so that the commands also tell whether the gateway speaks the protocol as others understand it.
package mqtt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// answerTimeout bounds the wait for each answer of the server.
const answerTimeout = 10 * time.Second

// Message is what is published and received.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
}

// Options describe one connection.
type Options struct {
	Addr      string // host:port
	Version   string // "5" or "311"
	ClientID  string // empty = the server assigns one
	Username  string
	Password  string
	Durable   bool // keep the session after the connection: needs a ClientID
	KeepAlive time.Duration
	// OnMessage gets the messages one after the other. A message is acknowledged when it returns true, and left to the server when it returns false.
	OnMessage func(Message) bool
}

// Client is a connection to an MQTT server. Its methods may be called from one goroutine at a time.
type Client interface {
	// Publish sends a message and, for QoS 1 and 2, returns when the server has acknowledged it. A refusal is an error.
	Publish(ctx context.Context, m Message) error
	// Subscribe returns when the server has accepted every filter. A filter that it refuses is an error.
	Subscribe(ctx context.Context, filters []string, qos byte) error
	// Lost is closed when the connection ends without Close, after which Err says why.
	Lost() <-chan struct{}
	Err() error
	// Close disconnects and waits until OnMessage is not called any more.
	Close()
}

// Dial connects. The error says which server refused, and why.
func Dial(ctx context.Context, o Options) (Client, error) {
	if o.Durable && o.ClientID == "" {
		return nil, errors.New("a session that outlives the connection needs a client id")
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var c Client
	var err error
	if o.Version == "311" {
		c, err = dial3(ctx, o)
	} else {
		c, err = dial5(ctx, o)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", o.Addr, err)
	}
	return c, nil
}

// loss is how a connection ended: said once, by the first to notice.
type loss struct {
	once sync.Once
	done chan struct{}
	err  error
}

func newLoss() *loss { return &loss{done: make(chan struct{})} }

func (l *loss) lost(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.done)
	})
}

// closing makes what follows no loss.
func (l *loss) closing() { l.once.Do(func() {}) }

func (l *loss) Lost() <-chan struct{} { return l.done }

// Err may be called after Lost is closed.
func (l *loss) Err() error { return l.err }
