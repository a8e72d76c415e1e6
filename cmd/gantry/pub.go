package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"gantry/cmd/gantry/internal/mqtt"
)

// maxLine bounds a line of standard input: the largest message that a gateway can be configured to take.
const maxLine = 64 << 20

type pubCmd struct {
	peer
	Topic   string  `short:"t" required:"" help:"Topic to publish to."`
	Message *string `short:"m" xor:"what" help:"Payload."`
	File    string  `short:"f" xor:"what" placeholder:"FILE" help:"Send a file as the payload."`
	Lines   bool    `short:"l" name:"stdin-line" xor:"what" help:"Send each line of standard input as a message."`
	Stdin   bool    `short:"s" name:"stdin-file" xor:"what" help:"Send all of standard input as the payload."`
	Null    bool    `short:"n" name:"null-message" xor:"what" help:"Send an empty payload; with -r this deletes the retained message."`
	Retain  bool    `short:"r" help:"The server keeps the message for later subscribers."`
}

// Run publishes. With QoS 1 and 2 it succeeds when the server has acknowledged every message.
func (c *pubCmd) Run(ctx context.Context, s streams) error {
	payload, err := c.payload(s.in)
	if err != nil {
		return err
	}
	client, err := mqtt.Dial(ctx, c.options())
	if err != nil {
		return err
	}
	defer client.Close()
	if c.Lines {
		return c.lines(ctx, s.in, client)
	}
	return c.publish(ctx, client, payload)
}

// payload returns the one payload to send, nil with -l.
func (c *pubCmd) payload(stdin io.Reader) ([]byte, error) {
	switch {
	case c.Message != nil:
		return []byte(*c.Message), nil
	case c.File != "":
		return os.ReadFile(c.File)
	case c.Stdin:
		return io.ReadAll(stdin)
	case c.Lines, c.Null:
		return nil, nil
	}
	return nil, errors.New("nothing to publish: give one of -m, -f, -l, -s and -n")
}

func (c *pubCmd) lines(ctx context.Context, r io.Reader, client mqtt.Client) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxLine)
	for scanner.Scan() {
		if err := c.publish(ctx, client, bytes.Clone(scanner.Bytes())); err != nil {
			return err
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	return nil
}

func (c *pubCmd) publish(ctx context.Context, client mqtt.Client, payload []byte) error {
	if err := client.Publish(ctx, mqtt.Message{Topic: c.Topic, Payload: payload, QoS: c.QoS, Retain: c.Retain}); err != nil {
		return fmt.Errorf("publish to %s: %w", c.Topic, err)
	}
	return nil
}
