// Package chains draws certificate chains and has them judged by go-spiffe and by the forwarder. Run it with npm run interop.
package chains

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	defaultSeed  = 20260601
	defaultCount = 10_000
	// of all chains that either verdict must have
	fewest = 0.3
)

// The seed comes from INTEROP_CHAINS_SEED, the number from INTEROP_CHAINS_COUNT.
func TestChainsAreJudgedAsByGoSpiffe(t *testing.T) {
	seed, count := fromEnv(t, "INTEROP_CHAINS_SEED", defaultSeed), fromEnv(t, "INTEROP_CHAINS_COUNT", defaultCount)
	t.Logf("seed %d, %d chains", seed, count)
	generator := newGenerator(uint64(seed))
	draws, questions := make([]*draw, count), make([]question, count)
	for i := range draws {
		draws[i] = generator.next()
		questions[i] = draws[i].question()
	}
	theirs := make(chan []verdict)
	go func() {
		verdicts := make([]verdict, count)
		for i, put := range questions {
			verdicts[i] = judgeByGoSpiffe(put)
		}
		theirs <- verdicts
	}()
	ours, err := judgeByOurs(questions)
	goSpiffes := <-theirs
	if err != nil {
		t.Fatal(err)
	}
	tally := newTally()
	for i, draw := range draws {
		tally.add(t, i, draw, goSpiffes[i], ours[i])
	}
	tally.report(t)
}

func fromEnv(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	value, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s is no number: %v", name, err)
	}
	return value
}

// tally counts verdicts by kind, and differences by their class.
type tally struct {
	all, accepted, acceptedByGo, unexplained int
	kinds                                    map[string]*counts
	classes                                  map[string]int
}

type counts struct{ all, accepted int }

func newTally() *tally { return &tally{kinds: map[string]*counts{}, classes: map[string]int{}} }

// mostShown differences without a class are shown in full.
const mostShown = 20

func (a *tally) add(t *testing.T, number int, d *draw, theirs, ours verdict) {
	a.all++
	if theirs.accepts() {
		a.acceptedByGo++
	}
	if ours.accepts() {
		a.accepted++
	}
	for kind := range d.kinds {
		if a.kinds[kind] == nil {
			a.kinds[kind] = &counts{}
		}
		a.kinds[kind].all++
		if theirs.accepts() {
			a.kinds[kind].accepted++
		}
	}
	if ours.Crash == "" && theirs.ID == ours.ID {
		return
	}
	if class := classOf(d, theirs, ours); class != "" {
		a.classes[class]++
		return
	}
	a.unexplained++
	if a.unexplained <= mostShown {
		t.Errorf("chain %d: a difference without a reason\n  of: %s\n  go-spiffe: %q\n  ours: %q", number, strings.Join(slices.Sorted(maps.Keys(d.kinds)), "; "), theirs, ours)
	}
}

func (a *tally) report(t *testing.T) {
	share := func(n int) float64 { return float64(n) / float64(a.all) }
	t.Logf("accepted by go-spiffe %d, by ours %d, of %d", a.acceptedByGo, a.accepted, a.all)
	for _, accepted := range []int{a.acceptedByGo, a.accepted} {
		if share(accepted) < fewest || share(accepted) > 1-fewest {
			t.Errorf("one verdict is rare: %d of %d accepted", accepted, a.all)
		}
	}
	for _, line := range a.kindLines() {
		t.Log(line)
	}
	for _, kind := range expectedKinds() {
		if a.kinds[kind] == nil {
			t.Errorf("no chain of the kind %q", kind)
		}
	}
	for _, class := range classes {
		t.Logf("%s: %d × %s", class.direction, a.classes[class.name], class.name)
		if a.classes[class.name] == 0 {
			t.Errorf("no difference of the class %q: is it one still?", class.name)
		}
	}
	if a.unexplained > 0 {
		t.Errorf("%d differences without a reason", a.unexplained)
	}
}

// kindLines has ten kinds in each: name, how many chains, how many of them go-spiffe accepted.
func (a *tally) kindLines() []string {
	var lines []string
	for names := range slices.Chunk(slices.Sorted(maps.Keys(a.kinds)), 10) {
		for i, name := range names {
			names[i] = fmt.Sprintf("%s %d/%d", name, a.kinds[name].accepted, a.kinds[name].all)
		}
		lines = append(lines, "accepted/drawn: "+strings.Join(names, "; "))
	}
	return lines
}

// expectedKinds are all that can be drawn.
func expectedKinds() []string {
	var all []string
	for _, change := range changes {
		if len(change.levels) == 0 {
			all = append(all, change.name)
		}
		for _, level := range change.levels {
			all = append(all, change.name+": "+level)
		}
	}
	return all
}
