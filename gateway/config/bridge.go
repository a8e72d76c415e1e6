package config

// Bridge is one sink with its queue on local disk and the routes that lead to it.
type Bridge struct {
	Name         string      `yaml:"name"` // also the name of its queue folder
	Type         BridgeType  `yaml:"type"`
	Brokers      []Addr      `yaml:"brokers"` // addresses of a few brokers of the cluster; the others are learned from them
	TLS          *TLS        `yaml:"tls"`     // nil = plain TCP
	SASL         *SASL       `yaml:"sasl"`    // nil = no login
	Compression  Compression `yaml:"compression"`
	CreateTopics bool        `yaml:"create_topics"` // ask the brokers to make a topic that does not exist
	Queue        Queue       `yaml:"queue"`
	DeadLetter   DeadLetter  `yaml:"dead_letter"`
	Routes       []Route     `yaml:"routes"`
}

// Queue bounds the disk queue of a bridge.
type Queue struct {
	MaxBytes     Bytes         `yaml:"max_bytes"`
	WhenFull     QueueWhenFull `yaml:"when_full"`
	SegmentBytes Bytes         `yaml:"segment_bytes"` // size of one file: the unit in which disk is freed; 0 = a sixteenth of MaxBytes, 64 KiB to 16 MiB
}

// DeadLetter bounds the file of messages that the receiver refused for good.
type DeadLetter struct {
	MaxBytes Bytes `yaml:"max_bytes"`
}

// Route leads the messages that match a filter to a topic of the sink. Topic, Key and the values of Headers are templates.
type Route struct {
	Filter  string            `yaml:"filter"`
	Topic   string            `yaml:"topic"`
	Key     string            `yaml:"key"` // empty = no key: messages are spread over the partitions
	Headers map[string]string `yaml:"headers"`
	Format  Format            `yaml:"format"`
}

// SASL is the login to Kafka.
type SASL struct {
	Mechanism Mechanism `yaml:"mechanism"`
	User      string    `yaml:"user"`
	Password  Secret    `yaml:"password"`
}

func (b *Bridge) setDefaults() {
	*b = Bridge{
		Compression: CompressionNone,
		Queue:       Queue{MaxBytes: GiB, WhenFull: QueueRefuse},
		DeadLetter:  DeadLetter{MaxBytes: 64 * MiB},
	}
}

func (r *Route) setDefaults() { *r = Route{Key: "${clientid}", Format: FormatRaw} }
