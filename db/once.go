package db

import "sync"

// logOnce keeps a busy line of code from filling the log.
type logOnce struct {
	mu     sync.Mutex
	logged map[string]bool
}

const mostLogged = 100

// first reports whether this is the first time, and within the total limit.
func (o *logOnce) first(what string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.logged[what] || len(o.logged) >= mostLogged {
		return false
	}
	if o.logged == nil {
		o.logged = map[string]bool{}
	}
	o.logged[what] = true
	return true
}
