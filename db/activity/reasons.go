package activity

// Reason is why a session has its slot, as far as that is visible from outside.
type Reason string

// The reasons.
const (
	LogsIn       Reason = "login"              // has not finished its login
	WaitsForLock Reason = "lock"               // waits for a lock
	Blocks       Reason = "blocks"             // has a lock that others wait for, and waits for none
	WaitsForSync Reason = "sync-standby"       // its commit waits for a synchronous standby
	LeakedTx     Reason = "leaked-transaction" // left a transaction open, for longer than Thresholds allow
	PausesInTx   Reason = "paused-transaction" // does something else inside a transaction
	UnreadRows   Reason = "unread-rows"        // the server waits for the client to read on
	UnsentData   Reason = "unsent-data"        // the server waits for the client to send on, for example to a COPY
	SlowQuery    Reason = "slow-query"         // for longer than Thresholds allow
	Listens      Reason = "listen"
	Works        Reason = "working"
	Rests        Reason = "idle"
	CannotBeSeen Reason = "not-visible" // by this role
	NotTracked   Reason = "not-tracked" // by the server: track_activities is off
	Comes        Reason = "short-lived" // of an application whose sessions begin and end too fast
)

// reasons are the properties of the Reasons.
var reasons = map[Reason]struct {
	words    string                             // for people
	gravity  int                                // how much worse it is than an idle session, which can be closed without harm
	scenario func(*problem) (name, also string) // the likeliest, and another that looks the same from outside; "": none
	first    func(*problem) []Step              // what helps now
}{
	LogsIn:       {"that don't finish their login", 4, looksLike(""), (*problem).firstForLogins},
	WaitsForLock: {"waiting for a lock", 4, (*problem).recogniseLock, (*problem).firstForLock},
	Blocks:       {"with a lock that others wait for", 4, (*problem).recogniseOther, (*problem).firstForIdle},
	WaitsForSync: {"whose commit waits for a synchronous standby", 5, (*problem).recogniseOther, (*problem).firstForIdle},
	LeakedTx:     {"in a transaction that was left open", 4, looksLike("leaked-transaction"), (*problem).firstForLeak},
	PausesInTx: {
		"idle in a transaction", 2, (*problem).recognisePause,
		onlyLook("these transactions are young; see how long they stay open, and on what"),
	},
	UnreadRows: {"with rows that the client does not read", 3, (*problem).recogniseUnread, (*problem).firstForClient},
	UnsentData: {"waiting for data that the client does not send", 3, looksLike("stream-holds-lease"), (*problem).firstForClient},
	SlowQuery:  {"running a slow query", 3, (*problem).recogniseSlow, (*problem).firstForSlow},
	Listens: {
		"listening for notifications", 1, looksLike("listen-pins-slot"),
		onlyLook("a listener that is closed misses its notifications, and most connect again at once"),
	},
	Works:        {"working", 1, (*problem).recogniseOther, onlyLook("these sessions work; send less at once, or queue before the database")},
	Rests:        {"idle", 1, (*problem).recogniseOther, (*problem).firstForIdle},
	CannotBeSeen: {"doing what this role may not see", 1, looksLike("noisy-neighbour"), (*problem).firstForHidden},
	NotTracked:   {"doing what the server does not record (track_activities is off)", 1, looksLike(""), (*problem).firstForUntracked},
	Comes:        {"that begin and soon end", 1, (*problem).recogniseChurn, (*problem).firstForChurn},
}

// looksLike names a scenario that no other resembles; "": none.
func looksLike(name string) func(*problem) (name, also string) {
	return func(*problem) (string, string) { return name, "" }
}

// onlyLook is the first step where ending a session helps nobody.
func onlyLook(why string) func(*problem) []Step {
	return func(p *problem) []Step { return []Step{p.endNothing(why)} }
}
