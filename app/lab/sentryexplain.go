package lab

import (
	"fmt"
	"strings"
)

// explain describes the result of the steps in one or two sentences.
func (r *sentryRun) explain() string {
	if r.unserved() {
		return "The run got no connection for itself. " +
			"This has nothing to do with Sentry: the step had captured nothing yet."
	}
	var sentences []string
	if r.answer.Hook == hookQueries {
		sentences = append(sentences, r.explainHook())
		for _, n := range r.answer.Nested {
			sentences = append(sentences, fmt.Sprintf("The log names the lines: the lease of %s is held, and %s asks for another.", n.First, n.Second))
		}
	}
	if r.answer.Transport == transportSync {
		sentences = append(sentences, r.explainSync())
	}
	switch {
	case len(sentences) > 0:
	case r.answer.ConnectionsTaken > 0:
		sentences = append(sentences, "A capture does not use the database here: "+
			"the connections that were taken meanwhile went to other requests.")
	default:
		sentences = append(sentences, "No capture took a connection, nor waited for Sentry: "+
			"the event goes to a queue in memory, and one goroutine sends it. Try hook=queries and transport=sync, which do both.")
	}
	return strings.Join(sentences, " ")
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
			"All connections (%d) were in use, so %d captures waited in vain for their own request: "+
			"a deadlock that only the timeout ends. "+
			"Don't query in a hook, or release the lease before the capture, as the last step does.", size, r.locked)
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
		"up to %.0f ms, and the lease was out for %.0f ms meanwhile. A slow Sentry uses up a pool in this way. "+
		"The asynchronous transport, which the application uses, only puts the event in a queue.", took, held)
}
