package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"
	gometrics "github.com/rcrowley/go-metrics"
)

// Sarama counts everything with go-metrics, which costs time in each request and
// keeps a goroutine for ever. This package has its own counters, and nothing
// else uses that library.
func init() { gometrics.UseNilMetrics = true }

// connection is the client of one run. It ends with the run's context, whatever
// sarama is waiting for at that moment.
type connection struct {
	sarama.Client
	dialer *dialer
	stop   func() bool
}

func connect(ctx context.Context, cfg *Config) (*connection, error) {
	dialCtx, cancel := context.WithCancel(ctx)
	d := &dialer{ctx: dialCtx, cancel: cancel, timeout: cfg.DialTimeout, conns: map[net.Conn]struct{}{}}
	client, err := sarama.NewClient(cfg.Brokers, cfg.client(d))
	if err != nil {
		cancel()
		return nil, err
	}
	return &connection{Client: client, dialer: d, stop: context.AfterFunc(ctx, d.closeAll)}, nil
}

// close drops all connections and returns when no callback of AsyncProduce can
// come any more.
func (c *connection) close() {
	c.stop()
	c.dialer.closeAll()
	for _, b := range c.Brokers() {
		_ = b.Close() // an error says that it was not open
	}
	_ = c.Close() // an error says that it was closed
}

// partitions returns the number of partitions of a topic.
func (c *connection) partitions(topic string) (int32, error) {
	list, err := c.Partitions(topic)
	if err != nil {
		return 0, fmt.Errorf("topic %s: %w", topic, err)
	}
	if len(list) == 0 {
		return 0, fmt.Errorf("topic %s: it has no partitions", topic)
	}
	return int32(len(list)), nil
}

// defaultMaxMessage is Kafka's default for max.message.bytes, less a margin for
// brokers that count a little differently.
const defaultMaxMessage = 1 << 20

// maxMessageBytes returns the largest batch that the topic takes, with a safe
// guess when the broker does not tell.
func (c *connection) maxMessageBytes(topic string) int {
	const setting = "max.message.bytes"
	leader, err := c.Leader(topic, 0)
	if err != nil {
		return defaultMaxMessage
	}
	resp, err := leader.DescribeConfigs(&sarama.DescribeConfigsRequest{
		Version:   1,
		Resources: []*sarama.ConfigResource{{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{setting}}},
	})
	if err != nil {
		return defaultMaxMessage
	}
	for _, resource := range resp.Resources {
		for _, entry := range resource.Configs {
			if n, err := strconv.Atoi(entry.Value); err == nil && entry.Name == setting && n > 0 {
				return n
			}
		}
	}
	return defaultMaxMessage
}

// producerID asks for a new identity.
func (c *connection) producerID() (id int64, epoch int16, err error) {
	b := c.LeastLoadedBroker()
	if b == nil {
		return 0, 0, sarama.ErrOutOfBrokers
	}
	resp, err := b.InitProducerID(&sarama.InitProducerIDRequest{
		Version: 4, TransactionTimeout: time.Minute, ProducerID: -1, ProducerEpoch: -1,
	})
	if err == nil && resp.Err != sarama.ErrNoError {
		err = resp.Err
	}
	if err != nil {
		return 0, 0, fmt.Errorf("ask %s for a producer id: %w", b.Addr(), err)
	}
	return resp.ProducerID, resp.ProducerEpoch, nil
}

// dialer opens connections that all end with ctx. It exists because sarama's
// calls take no context: closing their connections is what interrupts them.
type dialer struct {
	ctx     context.Context //nolint:containedctx // sarama's interface has no other place for it
	cancel  context.CancelFunc
	timeout time.Duration

	mu     sync.Mutex // covers the rest
	conns  map[net.Conn]struct{}
	closed bool
}

func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: d.timeout}).DialContext(d.ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	d.conns[conn] = struct{}{}
	return &trackedConn{Conn: conn, dialer: d}, nil
}

func (d *dialer) closeAll() {
	d.cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for conn := range d.conns {
		_ = conn.Close() // what it still wanted to say does not matter
	}
	clear(d.conns)
}

func (d *dialer) forget(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, conn)
}

type trackedConn struct {
	net.Conn
	dialer *dialer
}

func (c *trackedConn) Close() error {
	c.dialer.forget(c.Conn)
	return c.Conn.Close()
}
