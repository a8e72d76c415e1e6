package config

import (
	"encoding"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const samples = "../../configs/"

// The annotated file says of itself that it shows the defaults.
func TestAnnotatedFileEqualsDefaults(t *testing.T) {
	c, err := Load(samples+"gantry.yaml", nil)
	require.NoError(t, err)
	want := Default()
	want.Bridges = []Bridge{}
	want.Broker.Rewrite, want.Broker.AutoSubscribe = []RewriteRule{}, []AutoSubscription{}
	want.Listeners.MQTT[0].Origins = []string{}
	want.Listeners.HTTP[0].Hosts, want.Listeners.HTTP[0].Origins = []string{}, []string{}
	want.Admin.Hosts = []string{}
	require.Equal(t, want, c)
}

func TestSamplesLoad(t *testing.T) {
	for _, name := range []string{"minimal.yaml", "example-kafka.yaml"} {
		c, err := Load(samples+name, nil)
		require.NoError(t, err)
		require.Len(t, c.Bridges, 1)
	}
}

// The example of listeners has each kind, and shows defaults where it does not say otherwise.
func TestExampleListeners(t *testing.T) {
	c, err := Load(samples+"example-listeners.yaml", nil)
	require.NoError(t, err)
	all := c.Listeners.MQTT
	require.Len(t, all, 5)
	dir := filepath.Clean(samples)
	require.Equal(t, &ServerTLS{
		Cert: dir + "/server.pem", Key: dir + "/server.key", ClientCA: dir + "/devices-ca.pem", ClientAuth: ClientAuthRequire, Identity: IdentityCN,
	}, all[0].TLS)
	require.Equal(t, &ServerTLS{Cert: dir + "/server.pem", Key: dir + "/server.key", ClientAuth: ClientAuthNone, Identity: IdentityNone}, all[1].TLS)
	require.Equal(t, "/mqtt", all[1].WebSocketPath())
	require.Equal(t, MQTTOverQUIC, all[2].Transport)
	require.Equal(t, []Network{{netip.MustParsePrefix("10.0.0.0/24")}}, all[3].ProxyProtocol.Trusted)
	require.True(t, all[4].Bind.IsUnix())
	for _, l := range all {
		want := defaultMQTT()
		want.Name, want.Bind, want.Transport = l.Name, l.Bind, l.Transport
		l.TLS, l.ProxyProtocol, l.Origins = nil, nil, nil
		require.Equal(t, want, l)
	}
}

func TestExampleTopics(t *testing.T) {
	c, err := Load(samples+"example-topics.yaml", nil)
	require.NoError(t, err)
	require.Len(t, c.Listeners.MQTT, 2)
	require.Equal(t, []RewriteRule{{Action: "subscribe", Filter: "+/+/fw/#", Regex: "^[^/]+/[^/]+/fw/(.+)$", Topic: "firmware/$1"}}, c.Broker.Rewrite)
	require.Equal(t, []AutoSubscription{{Filter: "cmd/${clientid}", QoS: 1}}, c.Broker.AutoSubscribe)
}

// The example of a bridge shows the default of every key that is not marked as required.
func TestExampleBridgeShowsDefaults(t *testing.T) {
	c, err := Load(samples+"example-kafka.yaml", nil)
	require.NoError(t, err)
	var want Bridge
	want.setDefaults()
	got := c.Bridges[0]
	require.Equal(t, want.Queue, got.Queue)
	require.Equal(t, want.DeadLetter, got.DeadLetter)
	require.Equal(t, want.Compression, got.Compression)
	require.Equal(t, want.CreateTopics, got.CreateTopics)
	var route Route
	route.setDefaults()
	require.Equal(t, route.Key, got.Routes[0].Key)
	require.Equal(t, route.Format, got.Routes[0].Format)
}

// Every key that the loader takes stands in a sample, as an active line.
func TestSamplesShowEveryKey(t *testing.T) {
	shown := make(map[string]bool)
	for _, name := range []string{"gantry.yaml", "example-kafka.yaml", "example-listeners.yaml", "example-topics.yaml"} {
		text, err := os.ReadFile(samples + name)
		require.NoError(t, err)
		var doc yaml.Node
		require.NoError(t, yaml.Unmarshal(text, &doc))
		collectKeys(doc.Content[0], "", shown)
	}
	keys := structKeys(reflect.TypeFor[Config](), "")
	require.Greater(t, len(keys), 40)
	for _, key := range keys {
		require.True(t, shown[key], "no sample shows %s", key)
	}
}

// Every name that a comment of a sample calls not available is one that the loader refuses as such.
func TestSamplesNameOnlyRefusedKeys(t *testing.T) {
	for key, text := range map[string]string{
		"auth.chain":    "auth: {chain: []}",
		"authorization": "authorization: {default: deny}",
		"store.redis":   "store: {redis: {}}",
	} {
		_, err := parse("f", []byte(text), nil)
		require.EqualError(t, err, "f:1: "+key+": not available in this version")
		annotated, err := os.ReadFile(samples + "gantry.yaml")
		require.NoError(t, err)
		require.Contains(t, string(annotated), key)
	}
}

// Each field has a documented key in the house spelling.
func TestKeysAreSpeltAlike(t *testing.T) {
	for _, key := range structKeys(reflect.TypeFor[Config](), "") {
		last := key[strings.LastIndexByte(key, '.')+1:]
		require.Regexp(t, `^[a-z]+[0-9]?(_[a-z]+)*$`, last)
	}
}

func collectKeys(n *yaml.Node, path string, into map[string]bool) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			child := join(path, n.Content[i].Value)
			into[child] = true
			collectKeys(n.Content[i+1], child, into)
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			collectKeys(item, path, into)
		}
	}
}

// structKeys lists the keys of t and below, without list indexes.
func structKeys(t reflect.Type, path string) []string {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return nil
	}
	var keys []string
	for field := range t.Fields() {
		key := join(path, field.Tag.Get("yaml"))
		keys = append(keys, key)
		keys = append(keys, structKeys(field.Type, key)...)
	}
	return keys
}
