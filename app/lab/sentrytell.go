package lab

import (
	"fmt"
	"strings"
)

// explain describes the result of the steps in one or two sentences.
func (r *sentryRun) explain() string {
	if r.unserved() {
		return "The run found no connection for itself: " +
			"that is not Sentry's doing, since nothing was captured yet in that step."
	}
	var said []string
	if r.hook == hookQueries {
		said = append(said, r.explainHook())
		for _, n := range r.answer.Nested {
			said = append(said, fmt.Sprintf("The log names the lines: the lease of %s is held, and %s asks for another.", n.First, n.Second))
		}
	}
	if r.transport == transportSync {
		said = append(said, r.explainSync())
	}
	switch {
	case len(said) > 0:
	case r.answer.ConnectionsTaken > 0:
		said = append(said, "A capture has no way to the database here: "+
			"the connections that were taken meanwhile went to other requests.")
	default:
		said = append(said, "No capture took a connection, nor waited for Sentry: "+
			"the event goes to a queue in memory, and one goroutine sends it. Try hook=queries and transport=sync, which do both.")
	}
	return strings.Join(said, " ")
}

// unserved reports whether a step ended before its capture.
func (r *sentryRun) unserved() bool {
	last := r.answer.Steps[len(r.answer.Steps)-1]
	return last.Error != "" && last.EventID == ""
}

func (r *sentryRun) explainHook() string {
	size := r.db.Stat().Size
	switch {
	case r.locked > 0:
		return fmt.Sprintf("The event hook asked for a second connection while the request held the first. "+
			"All there are (%d) were out, so %d captures waited in vain for their own request: "+
			"a deadlock that only the timeout ends. "+
			"Don't query in a hook, or give the lease back before the capture, as the last step does.", size, r.locked)
	case r.answer.Error != "":
		return "The event hook asked for a second connection while the request held the first, " +
			"and its query failed: " + r.answer.Error + "."
	}
	return fmt.Sprintf("The event hook took a second connection while the request held the first. There was room for it, "+
		"but %d requests that fail at once on %[1]d connections would wait for each other until the timeout.", size)
}

func (r *sentryRun) explainSync() string {
	var took, held float64
	for _, s := range r.answer.Steps {
		if s.HoldsLease {
			took, held = max(took, s.TookMS), max(held, s.LeaseHeldMS)
		}
	}
	return fmt.Sprintf("The synchronous transport waits for Sentry's answer within the capture: "+
		"up to %.0f ms, and the lease was out for %.0f ms meanwhile. Slow answers of Sentry so use up a pool. "+
		"The asynchronous transport, which the application uses, only puts the event in a queue.", took, held)
}
