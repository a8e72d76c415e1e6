//go:build unix

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
	"github.com/plgd-dev/go-coap/v3/udp/client"
)

const (
	// answersWithin is how long a device waits for an acknowledgement before it
	// connects anew: a killed gateway says nothing.
	answersWithin = 2 * time.Second
	redialEvery   = 10 * time.Millisecond
)

// work is what a device does.
type work struct {
	account *account
	topic   string
	limit   int           // messages, 0 = until the context ends
	every   time.Duration // pause between messages, 0 = none
}

func (w *work) extend(n int) { w.limit += n }

// worker is a client. Serve is one connection; it returns nil when nothing is
// left to do.
type worker interface {
	serve(ctx context.Context) error
}

// device publishes what its account says, sends again what was not
// acknowledged, and connects anew when the gateway is gone.
type device interface {
	worker
	// extend adds n messages to the work. Not while the device runs.
	extend(n int)
}

// workforce runs workers.
type workforce struct {
	wg     sync.WaitGroup
	cancel context.CancelFunc

	mu   sync.Mutex // covers last
	last error      // latest trouble of any of them
}

// employ starts the workers; they end when their work is done, or with dismiss.
func employ[W worker](t testing.TB, workers ...W) *workforce {
	ctx, cancel := context.WithCancel(context.Background())
	f := &workforce{cancel: cancel}
	for _, w := range workers {
		f.wg.Go(func() { f.run(ctx, w) })
	}
	t.Cleanup(f.dismiss)
	return f
}

func (f *workforce) run(ctx context.Context, w worker) {
	for ctx.Err() == nil {
		err := w.serve(ctx)
		if err == nil {
			return
		}
		f.mu.Lock()
		f.last = err
		f.mu.Unlock()
		pause(ctx, redialEvery)
	}
}

// dismiss ends the workers, whatever they still have to do.
func (f *workforce) dismiss() {
	f.cancel()
	f.wg.Wait()
}

// finish waits until all work is done.
func (f *workforce) finish(t testing.TB, within time.Duration) {
	t.Helper()
	done := make(chan struct{})
	go func() { f.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(within):
		f.mu.Lock()
		defer f.mu.Unlock()
		t.Fatalf("devices have not finished within %s; latest trouble: %v", within, f.last)
	}
}

// pause is where a device rests: it models devices, it does not wait for
// anything to settle.
func pause(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// mqttDevice keeps a window of unacknowledged messages.
type mqttDevice struct {
	work
	addr    string
	version byte
	qos     byte
	window  int
	retain  bool
	answers time.Duration // how long it waits for an acknowledgement, 0 = answersWithin

	open   []sending // in the order of sending
	nextID uint16
}

// sending is a message that is not done with.
type sending struct {
	n        int
	id       uint16
	released bool // QoS 2: the gateway has it, PUBREL was sent
}

func (d *mqttDevice) serve(ctx context.Context) error {
	// A QoS 2 message that is sent again must meet the session that knows it.
	durable := d.qos == 2
	w, ack, err := dialMQTT(ctx, d.addr, hello{version: d.version, id: d.account.device, clean: !durable, expirySecs: 600})
	if err != nil {
		return err
	}
	defer w.conn.Close()
	if ack.ReasonCode != 0 {
		return fmt.Errorf("%s: CONNACK %#x", d.account.device, ack.ReasonCode)
	}
	stop := context.AfterFunc(ctx, func() { w.conn.Close() })
	defer stop()
	if err := d.repeat(w, ack.SessionPresent); err != nil {
		return err
	}
	for {
		if err := d.fill(w); err != nil {
			return err
		}
		if len(d.open) == 0 {
			return w.bye()
		}
		if err := d.hear(w); err != nil {
			return fmt.Errorf("%s: %w", d.account.device, err)
		}
		pause(ctx, d.every)
	}
}

// repeat sends again what the connection before left open.
func (d *mqttDevice) repeat(w *wire, known bool) error {
	for i := range d.open {
		s := &d.open[i]
		if s.released && known {
			if err := w.put(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel}, PacketID: s.id}); err != nil {
				return err
			}
			continue
		}
		s.released = false
		if err := d.publish(w, s, known); err != nil {
			return err
		}
	}
	return w.flush()
}

func (d *mqttDevice) fill(w *wire) error {
	for len(d.open) < d.window && (d.limit == 0 || len(d.account.sent) < d.limit) {
		d.nextID = max(1, d.nextID+1)
		d.open = append(d.open, sending{n: d.account.next(), id: d.nextID})
		if err := d.publish(w, &d.open[len(d.open)-1], false); err != nil {
			return err
		}
	}
	return w.flush()
}

func (d *mqttDevice) publish(w *wire, s *sending, again bool) error {
	p := publication(d.topic, d.qos, s.id, d.account.payload(s.n))
	p.FixedHeader.Dup, p.FixedHeader.Retain = again, d.retain
	return w.put(p)
}

// hear takes one acknowledgement.
func (d *mqttDevice) hear(w *wire) error {
	p, err := w.read(cmp.Or(d.answers, answersWithin))
	if err != nil {
		return err
	}
	i := 0
	for i < len(d.open) && d.open[i].id != p.PacketID {
		i++
	}
	// The gateway forgets a QoS 2 message with PUBREL; when it dies before its
	// PUBCOMP is read, the repeated PUBREL names an id that it does not know, which
	// is no error [MQTT 5.0 section 3.7.2.1].
	const idNotFound = 0x92
	refused := p.ReasonCode >= 0x80 && (p.FixedHeader.Type != packets.Pubcomp || p.ReasonCode != idNotFound)
	switch {
	case p.FixedHeader.Type == packets.Disconnect || refused:
		return fmt.Errorf("packet type %d with reason %#x", p.FixedHeader.Type, p.ReasonCode)
	case i == len(d.open):
		return fmt.Errorf("acknowledgement type %d for packet id %d, which is not open", p.FixedHeader.Type, p.PacketID)
	case p.FixedHeader.Type == packets.Pubrec:
		d.account.ack(d.open[i].n)
		d.open[i].released = true
		return w.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel}, PacketID: p.PacketID})
	}
	d.account.ack(d.open[i].n)
	d.open = append(d.open[:i], d.open[i+1:]...)
	return nil
}

// coapDevice sends one confirmable PUT after the other from one socket. It gives
// up before it would retransmit: a second datagram would be a second sending
// that the account does not know of.
type coapDevice struct {
	work
	addr string
	n    int // message under way
	more bool
}

func (d *coapDevice) serve(ctx context.Context) error {
	conn, err := udp.Dial(d.addr, options.WithTransmission(1, 2*answersWithin, 1), options.WithErrors(func(error) {}))
	if err != nil {
		return err
	}
	defer func() {
		_ = conn.Close() // tells what has failed before
		<-conn.Done()
	}()
	for ctx.Err() == nil {
		if !d.more {
			if d.limit > 0 && len(d.account.sent) == d.limit {
				return nil
			}
			d.n, d.more = d.account.next(), true
		}
		if err := d.put(ctx, conn); err != nil {
			return fmt.Errorf("%s: %w", d.account.device, err)
		}
		d.account.ack(d.n)
		d.more = false
		pause(ctx, d.every)
	}
	return ctx.Err()
}

func (d *coapDevice) put(ctx context.Context, conn *client.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	id := message.Option{ID: message.URIQuery, Value: []byte("c=" + d.account.device)}
	resp, err := conn.Put(ctx, "/ps/"+d.topic, message.AppJSON, bytes.NewReader(d.account.payload(d.n)), id)
	if err != nil {
		return err
	}
	if resp.Code() != codes.Changed {
		return fmt.Errorf("answer is %s", resp.Code())
	}
	return nil
}

// httpDevice sends one POST after the other.
type httpDevice struct {
	work
	addr string
	n    int // message under way
	more bool
}

func (d *httpDevice) serve(ctx context.Context) error {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: answersWithin}
	for ctx.Err() == nil {
		if !d.more {
			if d.limit > 0 && len(d.account.sent) == d.limit {
				return nil
			}
			d.n, d.more = d.account.next(), true
		}
		if err := d.post(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", d.account.device, err)
		}
		d.account.ack(d.n)
		d.more = false
		pause(ctx, d.every)
	}
	return ctx.Err()
}

func (d *httpDevice) post(ctx context.Context, c *http.Client) error {
	status, err := post(ctx, c, "http://"+d.addr+"/v1/topics/"+d.topic, d.account.device, d.account.payload(d.n))
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("answer is %d", status)
	}
	return nil
}

func post(ctx context.Context, c *http.Client, url, clientID string, body []byte) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Client-Id", clientID)
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// fleet is some devices of every protocol: each publishes on PLACE/NAME, at most
// limit messages, 0 for no limit, with a pause between them.
func (g *gateway) fleet(l *ledger, place string, each, limit int, every time.Duration) (all []device) {
	for i := range each {
		for _, kind := range []string{"mqtt3", "mqtt5", "qos2", "coap", "http"} {
			a := l.open(fmt.Sprintf("%s-%s-%d", place, kind, i), 0)
			all = append(all, g.device(kind, work{account: a, topic: place + "/" + a.device, limit: limit, every: every}))
		}
	}
	return all
}

func (g *gateway) device(kind string, w work) device {
	switch kind {
	case "mqtt3":
		return &mqttDevice{work: w, addr: g.mqtt, version: v311, qos: 1, window: 20}
	case "mqtt5":
		return &mqttDevice{work: w, addr: g.mqtt, version: v5, qos: 1, window: 50}
	case "qos2":
		return &mqttDevice{work: w, addr: g.mqtt, version: v5, qos: 2, window: 20}
	case "coap":
		return &coapDevice{work: w, addr: g.coap}
	default:
		return &httpDevice{work: w, addr: g.http}
	}
}
