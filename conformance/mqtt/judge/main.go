// Command judge runs the MQTT suite against a server that is already there:
//
//	judge -target 127.0.0.1:1883 [-websocket 127.0.0.1:8083] [-refuses 127.0.0.1:1884] [-broker mosquitto]
//	judge -target wss://host:8084/mqtt -ca ca.pem [-cert client.pem -key client.key]
//
// An address is host:port or tcp://host:port, tls://host:port,
// ws://host:port/path, wss://host:port/path, quic://host:port or unix:/path.
//
// It prints each statement that does not hold with what was seen, and counts. It
// exits with 1 when the server deviates. With -broker, deviations that are on
// record for that broker do not count.
//
// The suite uses topics below conformance/ and client identifiers of its own,
// and clears what it leaves in the server. Some checks wait for an expiry: a
// run takes about ten seconds, and ten more for each kind of packet that the
// server should refuse and does not.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"

	"gantry/conformance/mqtt"
)

// atOnce is how many checks run at the same time; most of them wait.
const atOnce = 16

func main() {
	target, broker, err := arguments()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	failed := 0
	for _, v := range []mqtt.Version{mqtt.MQTT5, mqtt.MQTT311} {
		failed += judge(target, v, broker)
	}
	fmt.Printf("%d failed\n", failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func arguments() (target mqtt.Target, broker mqtt.Broker, err error) {
	var f tlsFlags
	flag.StringVar(&target.Addr, "target", "127.0.0.1:1883", "address of the listener")
	flag.StringVar(&target.WebSocket, "websocket", "", "address of a WebSocket listener, when the target is none")
	flag.StringVar(&target.Refuses, "refuses", "", "address of a listener that lets nobody in without credentials")
	name := flag.String("broker", "", "gantry or mosquitto: whose deviations are known")
	f.define()
	flag.Parse()
	broker, known := map[string]mqtt.Broker{"": "", "gantry": mqtt.Gantry, "mosquitto": mqtt.Mosquitto}[strings.ToLower(*name)]
	if !known {
		return target, broker, fmt.Errorf("no verdicts of %q are on record", *name)
	}
	if err := mqtt.CheckAddress(target.Addr); err != nil {
		return target, broker, fmt.Errorf("target %s: %w", target.Addr, err)
	}
	target.TLS, err = f.config()
	return target, broker, err
}

// judge runs the statements of one version and returns how many deviations are
// not on record.
func judge(target mqtt.Target, v mqtt.Version, broker mqtt.Broker) (failed int) {
	statements := mqtt.Statements(v)
	verdicts := runAll(target, statements)
	count := map[mqtt.Result]int{}
	for i := range statements {
		s, got := &statements[i], verdicts[i]
		if !s.Checked() {
			continue
		}
		count[got.Result]++
		if got.Result == mqtt.Holds {
			continue
		}
		note := ""
		if got.Result == mqtt.Deviates && mqtt.Recorded(broker, s).Result == mqtt.Deviates {
			note = " (known)"
		} else if got.Result == mqtt.Deviates {
			failed++
		}
		fmt.Printf("%s%s: MQTT %s [MQTT-%s] %s: %s\n", got.Result, note, v, s.ID, s.Text, got.Detail)
	}
	fmt.Printf("MQTT %s: %d hold, %d deviate, %d not offered, %d not judged\n",
		v, count[mqtt.Holds], count[mqtt.Deviates], count[mqtt.NotOffered], count[mqtt.NotJudged])
	return failed
}

func runAll(target mqtt.Target, statements []mqtt.Statement) []mqtt.Verdict {
	verdicts := make([]mqtt.Verdict, len(statements))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i := range statements {
		if !statements[i].Checked() {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			verdicts[i] = mqtt.Run(target, &statements[i])
		})
	}
	wg.Wait()
	return verdicts
}
