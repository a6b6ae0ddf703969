package chains

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// verdict is a SPIFFE ID that was believed, or why none was.
type verdict struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"`
	Problem string `json:"problem"`
	// Crash is what ours threw that it should not have.
	Crash string `json:"crash"`
}

func (v verdict) accepts() bool { return v.ID != "" }

// question is a chain as both judges get it.
type question struct {
	now     time.Time
	bundles map[string][]byte
	chain   [][]byte
}

func (d *draw) question() question {
	put := question{now: d.now, bundles: map[string][]byte{}}
	for domain, authorities := range d.bundles {
		for _, c := range authorities {
			put.bundles[domain] = append(put.bundles[domain], c.encode()...)
		}
	}
	if d.isSilent {
		return put
	}
	for _, c := range d.sent {
		put.chain = append(put.chain, c.encode())
	}
	return put
}

// judgeByGoSpiffe is how a peer on go-spiffe takes the chain (spiffetls/tlsconfig), with the bundles that the Workload API gave.
func judgeByGoSpiffe(put question) verdict {
	bundles := x509bundle.NewSet()
	for domain, der := range put.bundles {
		bundle, err := x509bundle.ParseRaw(spiffeid.RequireTrustDomainFromString(domain), der)
		if err != nil {
			return verdict{Kind: "bundle", Problem: err.Error()}
		}
		bundles.Add(bundle)
	}
	id, _, err := x509svid.ParseAndVerify(put.chain, bundles, x509svid.WithTime(put.now))
	if err != nil {
		return verdict{Kind: "refused", Problem: err.Error()}
	}
	return verdict{ID: id.String()}
}

// judgeByOurs puts all questions to interop/chains.ts.
func judgeByOurs(questions []question) ([]verdict, error) {
	program := os.Getenv("INTEROP_CHAINS")
	if program == "" {
		return nil, errors.New("cannot query our side: INTEROP_CHAINS is not set; run npm run interop")
	}
	command := exec.Command(os.Getenv("INTEROP_NODE"), append(strings.Fields(os.Getenv("INTEROP_NODE_FLAGS")), program)...)
	var input bytes.Buffer
	for _, put := range questions {
		put.write(&input)
	}
	command.Stdin, command.Stderr = &input, os.Stderr
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot query our side: %w", err)
	}
	var verdicts []verdict
	lines := bufio.NewScanner(bytes.NewReader(output))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one verdict
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("cannot read our verdict %q: %w", lines.Text(), err)
		}
		verdicts = append(verdicts, one)
	}
	if len(verdicts) != len(questions) {
		return nil, fmt.Errorf("our side answered %d of %d", len(verdicts), len(questions))
	}
	return verdicts, nil
}

// write frames it for interop/chains.ts: time in ms, bundles with their domains, chain; each with its length or number before it.
func (q question) write(to *bytes.Buffer) {
	count := func(n int) { to.Write(binary.BigEndian.AppendUint32(nil, uint32(n))) }
	frame := func(bytes []byte) { count(len(bytes)); to.Write(bytes) }
	to.Write(binary.BigEndian.AppendUint64(nil, uint64(q.now.UnixMilli())))
	count(len(q.bundles))
	for domain, der := range q.bundles {
		frame([]byte(domain))
		frame(der)
	}
	count(len(q.chain))
	for _, der := range q.chain {
		frame(der)
	}
}
