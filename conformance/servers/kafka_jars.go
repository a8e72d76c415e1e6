//go:build unix

package servers

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// KafkaVersion is the Apache Kafka that tests run.
const KafkaVersion = "4.1.1"

// javaVersion is the oldest Java that the Kafka 4 server runs on.
const javaVersion = 17

//go:embed kafka-pom.xml
var kafkaPOM []byte

// kafkaClasspath returns the class path of the Kafka server. The first call on a
// machine has Maven fetch the jars, 43 MB, into the cache folder.
func kafkaClasspath(t testing.TB) string {
	t.Helper()
	dir, err := cached("kafka-"+KafkaVersion, func(dir string) error {
		mvn := Tool(t, "mvn")
		if err := os.WriteFile(filepath.Join(dir, "pom.xml"), kafkaPOM, 0o600); err != nil {
			return err
		}
		return runIn(dir, mvn, "--batch-mode", "--quiet", "-Dkafka.version="+KafkaVersion,
			"dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs")
	})
	if err != nil {
		missing(t, "Apache Kafka "+KafkaVersion, "Maven has to reach a repository: "+err.Error())
	}
	return filepath.Join(dir, "libs", "*")
}

var javaSays = regexp.MustCompile(`version "(\d+)`)

// java returns the path of a Java that is new enough.
func java(t testing.TB) string {
	t.Helper()
	program := Tool(t, "java")
	out, err := exec.Command(program, "-version").CombinedOutput()
	if err != nil {
		t.Fatalf("ask %s for its version: %v", program, err)
	}
	found := javaSays.FindSubmatch(out)
	if found == nil {
		t.Fatalf("%s does not tell its version: %s", program, out)
	}
	if version, err := strconv.Atoi(string(found[1])); err != nil || version < javaVersion {
		missing(t, "Java "+strconv.Itoa(javaVersion), installHint([]string{"java"}))
	}
	return program
}
