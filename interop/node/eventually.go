package node

import "time"

// Patience is how long a test waits for what must come: only a net, far above what a machine that is busy with other work takes.
const Patience = 4 * time.Minute

// interval between two observations of what reports no change by itself.
const interval = 20 * time.Millisecond

// Eventually waits until it is so; false where patience ends first.
func Eventually(is func() bool) bool {
	for end := time.Now().Add(Patience); !is(); time.Sleep(interval) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
