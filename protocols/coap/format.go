package coap

import (
	"strconv"
	"strings"
)

// noFormat stands for an absent Content-Format.
const noFormat = -1

// unknownFormat is the media type under which a Content-Format without a name
// in the table passes through the broker, so that it comes out as it went in.
const unknownFormat = "application/x-coap-cf;n="

// The Content-Formats of the IANA registry that have a media type a message
// can carry. The first name of a number is the one that a publish gets.
var formatTable = []struct {
	number int
	name   string
}{
	{0, "text/plain;charset=utf-8"},
	{0, "text/plain"},
	{16, `application/cose;cose-type="cose-encrypt0"`},
	{17, `application/cose;cose-type="cose-mac0"`},
	{18, `application/cose;cose-type="cose-sign1"`},
	{21, "image/gif"},
	{22, "image/jpeg"},
	{23, "image/png"},
	{40, "application/link-format"},
	{41, "application/xml"},
	{42, "application/octet-stream"},
	{47, "application/exi"},
	{50, "application/json"},
	{51, "application/json-patch+json"},
	{52, "application/merge-patch+json"},
	{60, "application/cbor"},
	{61, "application/cwt"},
	{62, "application/multipart-core"},
	{63, "application/cbor-seq"},
	{96, `application/cose;cose-type="cose-encrypt"`},
	{97, `application/cose;cose-type="cose-mac"`},
	{98, `application/cose;cose-type="cose-sign"`},
	{101, "application/cose-key"},
	{102, "application/cose-key-set"},
	{110, "application/senml+json"},
	{111, "application/sensml+json"},
	{112, "application/senml+cbor"},
	{113, "application/sensml+cbor"},
	{114, "application/senml-exi"},
	{115, "application/sensml-exi"},
	{256, "application/coap-group+json"},
	{310, "application/senml+xml"},
	{311, "application/sensml+xml"},
	{320, "application/senml-etch+json"},
	{322, "application/senml-etch+cbor"},
	{10000, "application/vnd.ocf+cbor"},
	{11542, "application/vnd.oma.lwm2m+tlv"},
	{11543, "application/vnd.oma.lwm2m+json"},
	{11544, "application/vnd.oma.lwm2m+cbor"},
}

var nameOfFormat, formatOfName = indexFormats()

func indexFormats() (names map[int]string, numbers map[string]int) {
	names, numbers = make(map[int]string), make(map[string]int)
	for _, f := range formatTable {
		if _, taken := names[f.number]; !taken {
			names[f.number] = f.name
		}
		numbers[f.name] = f.number
	}
	return names, numbers
}

// contentType is the media type of a Content-Format.
func contentType(number int) string {
	if name, ok := nameOfFormat[number]; ok {
		return name
	}
	return unknownFormat + strconv.Itoa(number)
}

// contentFormat is the Content-Format of a media type, noFormat when it has
// none. Case and blanks do not count.
func contentFormat(mediaType string) int {
	name := strings.ToLower(strings.ReplaceAll(mediaType, " ", ""))
	if number, ok := formatOfName[name]; ok {
		return number
	}
	rest, ok := strings.CutPrefix(name, unknownFormat)
	if !ok {
		return noFormat
	}
	number, err := strconv.ParseUint(rest, 10, 16)
	if err != nil {
		return noFormat
	}
	return int(number)
}
