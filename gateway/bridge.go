package gateway

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/bridge"
	"gantry/bridge/kafka"
	"gantry/bridge/queue"
	"gantry/gateway/admin"
	"gantry/gateway/config"
)

// bridgePart is one bridge: the stage in the broker's hook stage, the queue on
// disk, and the forwarder that empties it into the sink.
type bridgePart struct {
	cfg       *config.Bridge
	queue     *queue.Queue
	stage     *bridge.Stage
	sink      *kafka.Sink
	forwarder *bridge.Forwarder
	failing   atomic.Bool // its queue could not be written lately
}

// QueueDir is the folder of a bridge's queue below the data folder.
func QueueDir(dataDir, bridge string) string { return filepath.Join(dataDir, "queue", bridge) }

func openBridge(c *config.Bridge, cfg *config.Config, node string, log *slog.Logger, reg prometheus.Registerer) (_ *bridgePart, err error) {
	p := &bridgePart{cfg: c}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("bridge %s: %w", c.Name, err), p.close())
		}
	}()
	dir := QueueDir(cfg.DataDir, c.Name)
	p.queue, err = queue.Open(queue.Config{
		Dir: dir, Name: c.Name, MaxBytes: int64(c.Queue.MaxBytes), WhenFull: queue.Policy(c.Queue.WhenFull), SegmentBytes: int64(c.Queue.SegmentBytes),
		DeadMaxBytes: int64(c.DeadLetter.MaxBytes), Sync: syncPolicy(cfg), SyncEvery: time.Duration(cfg.Broker.SyncInterval), Log: log.With("bridge", c.Name),
	}, reg)
	if err != nil {
		return nil, err
	}
	routes, err := routesOf(c)
	if err != nil {
		return nil, err
	}
	if p.stage, err = bridge.NewStage(bridge.StageConfig{Bridge: c.Name, Node: node, Routes: routes}, p.queue, reg); err != nil {
		return nil, err
	}
	if p.sink, err = kafkaSink(c, dir, node, log, reg); err != nil {
		return nil, err
	}
	p.forwarder, err = bridge.NewForwarder(bridge.ForwarderConfig{Bridge: c.Name}, p.queue, p.sink, log, reg)
	return p, err
}

func (p *bridgePart) close() error {
	var errs []error
	if p.forwarder != nil {
		errs = append(errs, p.forwarder.Close())
	}
	if p.sink != nil {
		errs = append(errs, p.sink.Close())
	}
	if p.stage != nil {
		errs = append(errs, p.stage.Close())
	}
	if p.queue != nil {
		errs = append(errs, p.queue.Close())
	}
	return errors.Join(errs...)
}

func routesOf(c *config.Bridge) ([]bridge.Route, error) {
	routes := make([]bridge.Route, len(c.Routes))
	for i := range c.Routes {
		r := &c.Routes[i]
		topic, err := bridge.ParseTemplate(r.Topic)
		if err != nil {
			return nil, fmt.Errorf("routes[%d].topic: %w", i, err)
		}
		routes[i] = bridge.Route{Filter: r.Filter, Topic: topic, Format: bridge.Format(r.Format)}
		if r.Key != "" {
			if routes[i].Key, err = bridge.ParseTemplate(r.Key); err != nil {
				return nil, fmt.Errorf("routes[%d].key: %w", i, err)
			}
		}
		for name, text := range r.Headers {
			value, err := bridge.ParseTemplate(text)
			if err != nil {
				return nil, fmt.Errorf("routes[%d].headers.%s: %w", i, name, err)
			}
			routes[i].Headers = append(routes[i].Headers, bridge.Header{Name: name, Value: value})
		}
		slices.SortFunc(routes[i].Headers, func(a, b bridge.Header) int { return cmp.Compare(a.Name, b.Name) })
	}
	return routes, nil
}

func kafkaSink(c *config.Bridge, dir, node string, log *slog.Logger, reg prometheus.Registerer) (*kafka.Sink, error) {
	k := kafka.Config{Bridge: c.Name, Node: node, Dir: dir, Compression: string(c.Compression), CreateTopics: c.CreateTopics}
	for _, b := range c.Brokers {
		k.Brokers = append(k.Brokers, string(b))
	}
	var err error
	if k.TLS, err = c.TLS.ClientConfig(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	if c.SASL != nil {
		password, err := c.SASL.Password.Read()
		if err != nil {
			return nil, fmt.Errorf("sasl.password: %w", err)
		}
		k.SASL = &kafka.SASL{Mechanism: string(c.SASL.Mechanism), User: c.SASL.User, Password: password}
	}
	return kafka.New(k, log, reg)
}

// status shows the bridge in the words of the operator interface.
func (p *bridgePart) status() admin.Bridge {
	s := p.forwarder.Status()
	q := &s.Queue
	b := admin.Bridge{
		Name: p.cfg.Name, Type: string(p.cfg.Type), State: string(s.State),
		QueuedRecords: q.Records, QueuedBytes: q.Bytes, MaxBytes: q.MaxBytes, WhenFull: string(p.cfg.Queue.WhenFull),
		OldestAgeSeconds: q.OldestAge.Seconds(), Delivered: s.Confirmed, RatePerSecond: s.Rate, Dropped: q.Dropped,
		Refused: q.Refused, DeadLetters: q.DeadLetters, LastError: s.LastError, OldestUnconfirmedSeconds: s.OldestUnconfirmed.Seconds(),
	}
	if !s.LastErrorAt.IsZero() {
		b.LastErrorAt = &s.LastErrorAt
	}
	return b
}

// PeekQueue reads the first n records of a queue folder, or its dead letters,
// without taking them out. It works while a gateway uses the folder, and also
// when none does. Payload is what the receiver gets.
func PeekQueue(dir string, n int, dead bool) ([]admin.QueuedRecord, error) {
	snapshot, err := queue.Inspect(dir)
	if err != nil {
		return nil, err
	}
	list := make([]admin.QueuedRecord, 0, min(n, 100))
	if dead {
		for d, err := range snapshot.Dead() {
			if err != nil || len(list) == n {
				return list, err
			}
			r := decode(d.Seq, d.Body)
			r.Time, r.Reason = d.Time, d.Reason
			list = append(list, r)
		}
		return list, nil
	}
	for q, err := range snapshot.All() {
		if err != nil || len(list) == n {
			return list, err
		}
		r := decode(q.Seq, q.Body)
		r.Time = q.Time
		list = append(list, r)
	}
	return list, nil
}

// decode shows any bytes: a record that cannot be read is shown as it is.
func decode(seq uint64, body []byte) admin.QueuedRecord {
	var rec bridge.Record
	if err := rec.Decode(body); err != nil {
		return admin.QueuedRecord{Seq: seq, Payload: bytes.Clone(body), Reason: err.Error()}
	}
	return admin.QueuedRecord{Seq: seq, Topic: string(rec.Topic), Key: string(rec.Key), Payload: bytes.Clone(rec.Value)}
}
