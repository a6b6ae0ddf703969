// Package texts draws texts of addresses, durations and SPIFFE IDs, and has them read by Go and by the forwarder. Run it with npm run interop.
package texts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	seed  = 20260601
	count = 50_000
	// of the texts of each kind that Go must take
	fewest = 0.05
)

// kind is one sort of text. Its reader gives what Go understands, as text; false where it refuses.
type kind struct {
	name     string
	alphabet string
	seeds    []string
	read     func(text string) (string, bool)
}

var kinds = []kind{
	{"address", "0123456789abcdefF:.%", []string{"10.0.0.1", "255.255.255.255", "2001:db8::1", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "::"}, readAddress},
	{"prefix", "0123456789abcdefF:./+-", []string{"10.0.0.1/24", "0.0.0.0/0", "2001:db8::/48", "::/128", "::ffff:1.2.3.4/96"}, readPrefix},
	{"mac", "0123456789abcdefF:-.", []string{"02:00:00:00:00:01", "02-aB-00-00-00-01", "0200.0000.0001", "02:00:00:00:00:00:00:01"}, readMac},
	{"duration", "0123456789.+-hmsuµn ", []string{"1h30m", "50ms", "1.5s", "+2us", ".5h", "1.s", "2562047h47m", "0s", "1m0.000000001s"}, readDuration},
	{"spiffe-id", "abzAZ09._-/:%@?", []string{"spiffe://example.org/ns/a/pod/b-1", "spiffe://example.org", "spiffe://a.b_c/D/..e"}, readSpiffeID},
}

func readAddress(text string) (string, bool) {
	address, err := netip.ParseAddr(text)
	return address.String(), err == nil && address.Zone() == ""
}

func readPrefix(text string) (string, bool) {
	prefix, err := netip.ParsePrefix(text)
	return prefix.String(), err == nil
}

// Six bytes of one host: nothing else is a link's.
func readMac(text string) (string, bool) {
	mac, err := net.ParseMAC(text)
	isHost := err == nil && len(mac) == 6 && mac[0]&1 == 0 && !bytes.Equal(mac, make([]byte, 6)) && !strings.Contains(text, ".")
	return mac.String(), isHost
}

// As a number of milliseconds in ten digits: ours has no nanoseconds.
func readDuration(text string) (string, bool) {
	duration, err := time.ParseDuration(text)
	return strconv.FormatFloat(float64(duration)/1e6, 'e', 9, 64), err == nil && duration > 0
}

func readSpiffeID(text string) (string, bool) {
	id, err := spiffeid.FromString(text)
	return id.String(), err == nil
}

type question struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

type answer struct {
	Is    bool   `json:"is"`
	Value string `json:"value"`
}

func TestTextsAreReadAsByGo(t *testing.T) {
	random := rand.New(rand.NewPCG(seed, 0))
	questions := make([]question, count)
	for i := range questions {
		one := kinds[i%len(kinds)]
		questions[i] = question{one.name, one.draw(random)}
	}
	ours, err := queryOurs(questions)
	if err != nil {
		t.Fatal(err)
	}
	taken, shown := map[string]int{}, 0
	for i, put := range questions {
		value, is := kinds[i%len(kinds)].read(put.Text)
		if is {
			taken[put.Kind]++
		}
		if is == ours[i].Is && (!is || value == ours[i].Value) {
			continue
		}
		if shown++; shown <= 20 {
			t.Errorf("%s %q: Go says %v %s, ours %v %s", put.Kind, put.Text, is, value, ours[i].Is, ours[i].Value)
		}
	}
	for _, one := range kinds {
		t.Logf("%s: Go takes %d of %d", one.name, taken[one.name], count/len(kinds))
		if float64(taken[one.name]) < fewest*count/float64(len(kinds)) {
			t.Errorf("few texts of the kind %q are taken", one.name)
		}
	}
}

// draw changes a seed in up to three places, or not at all.
func (k kind) draw(random *rand.Rand) string {
	text := []rune(k.seeds[random.IntN(len(k.seeds))])
	alphabet := []rune(k.alphabet)
	for range random.IntN(4) {
		at := random.IntN(len(text) + 1)
		sign := alphabet[random.IntN(len(alphabet))]
		switch random.IntN(4) {
		case 0:
			text = append(text[:at:at], append([]rune{sign}, text[at:]...)...)
		case 1:
			text = append(text[:at:at], text[min(at+1, len(text)):]...)
		case 2:
			if at < len(text) {
				text[at] = sign
			}
		default:
			end := min(at+1+random.IntN(4), len(text))
			text = append(text[:end:end], text[at:]...)
		}
	}
	return string(text)
}

// queryOurs puts all questions to interop/texts.ts.
func queryOurs(questions []question) ([]answer, error) {
	program := os.Getenv("INTEROP_TEXTS")
	if program == "" {
		return nil, fmt.Errorf("cannot query our side: INTEROP_TEXTS is not set; run npm run interop")
	}
	input, err := json.Marshal(questions)
	if err != nil {
		return nil, err
	}
	command := exec.Command(os.Getenv("INTEROP_NODE"), append(strings.Fields(os.Getenv("INTEROP_NODE_FLAGS")), program)...)
	command.Stdin, command.Stderr = bytes.NewReader(input), os.Stderr
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot query our side: %w", err)
	}
	var answers []answer
	if err := json.Unmarshal(output, &answers); err != nil || len(answers) != len(questions) {
		return nil, fmt.Errorf("our side answered %d of %d: %v", len(answers), len(questions), err)
	}
	return answers, nil
}
