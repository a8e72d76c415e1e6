package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp"
	"github.com/plgd-dev/go-coap/v3/udp/client"
)

// device is one simulated device. Its ledger's mutex covers what is counted.
type device struct {
	ledger   *ledger
	protocol string
	id       string

	messages   []byte // bits, by message number
	tried      int
	newest     int
	duplicates int
	disordered int
}

// link is a device's connection to the gateway.
type link interface {
	// publish sends one message and returns nil when it was acknowledged.
	publish(ctx context.Context, topic string, payload []byte) error
	close()
}

// protocols are the ways in which devices reach the gateway.
var protocols = []struct {
	name string
	dial func(ctx context.Context, addr, id string) (link, error)
}{
	{"mqtt", dialMQTT},
	{"coap", dialCoAP},
	{"http", dialHTTP},
}

// ackTimeout is how long a device waits for one acknowledgement. A message
// without one is not sent again, so that a duplicate in Kafka is the gateway's.
const ackTimeout = 20 * time.Second

// publish sends numbered readings at a steady rate until ctx ends.
func (d *device) publish(ctx context.Context, dial func(context.Context, string, string) (link, error), addr string, rate float64) {
	interval := time.Duration(float64(time.Second) / rate)
	if !pause(ctx, rand.N(interval)) {
		return
	}
	var l link
	defer func() {
		if l != nil {
			l.close()
		}
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 0; ; {
		var err error
		if l == nil {
			l, err = dial(ctx, addr, d.id)
		}
		if err == nil {
			d.send(ctx, l, n)
			n++
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// send publishes message n; ctx does not cut off the wait for its acknowledgement.
func (d *device) send(ctx context.Context, l link, n int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackTimeout)
	defer cancel()
	payload := fmt.Appendf(nil, `{"device":%q,"n":%d,"temperature":%.1f}`, d.id, n, 20+5*rand.Float64())
	d.sent(n)
	if l.publish(ctx, "lab/"+d.protocol+"/"+d.id, payload) == nil {
		d.acked(n)
	}
}

type mqttLink struct{ client paho.Client }

func dialMQTT(_ context.Context, addr, id string) (link, error) {
	o := paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(id).SetProtocolVersion(4).SetConnectTimeout(5 * time.Second)
	c := paho.NewClient(o)
	t := c.Connect()
	t.Wait()
	return &mqttLink{c}, t.Error()
}

func (l *mqttLink) publish(ctx context.Context, topic string, payload []byte) error {
	t := l.client.Publish(topic, 1, false, payload)
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *mqttLink) close() { l.client.Disconnect(250) }

type coapLink struct {
	conn *client.Conn
	id   string
}

func dialCoAP(_ context.Context, addr, id string) (link, error) {
	c, err := udp.Dial(addr)
	return &coapLink{c, id}, err
}

func (l *coapLink) publish(ctx context.Context, topic string, payload []byte) error {
	res, err := l.conn.Put(ctx, "/ps/"+topic, message.AppJSON, bytes.NewReader(payload), message.Option{ID: message.URIQuery, Value: []byte("c=" + l.id)})
	if err != nil {
		return err
	}
	if res.Code() != codes.Changed {
		return fmt.Errorf("the gateway answered %v", res.Code())
	}
	return nil
}

func (l *coapLink) close() { l.conn.Close() } //nolint:errcheck // a UDP socket

type httpLink struct {
	client *http.Client
	url    string
	id     string
}

func dialHTTP(_ context.Context, addr, id string) (link, error) {
	return &httpLink{client: &http.Client{Transport: &http.Transport{}}, url: "http://" + addr + "/v1/topics/", id: id}, nil
}

func (l *httpLink) publish(ctx context.Context, topic string, payload []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+topic+"?qos=1", bytes.NewReader(payload))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Client-Id", l.id)
	res, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the gateway answered %s", strconv.Itoa(res.StatusCode))
	}
	return nil
}

func (l *httpLink) close() { l.client.CloseIdleConnections() }
