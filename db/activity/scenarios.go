package activity

import "slices"

// Scenario is one of the ways in which applications run PostgreSQL out of connections.
type Scenario struct {
	Number int    `json:"number"`
	Name   string `json:"name"`
	Cause  string `json:"cause"`
	Unseen string `json:"-"` // why the server's state can't show it; "": Diagnose can name it
}

// Scenarios returns all scenarios, in order.
func Scenarios() []Scenario { return slices.Clone(scenarios) }

var scenarios = []Scenario{
	{1, "thread-leak", "each thread keeps a connection of its own and outlives its request, so connections only add up", ""},
	{2, "missed-close", "something keeps the end of the response from closing the connection", ""},
	{3, "too-much-at-once", "a connection for each request, and more requests at once than free slots", ""},
	{4, "rows-not-closed", "a result is left open: the server waits for its client to read on", ""},
	{5, "leaked-transaction", "a transaction was begun and never ended; it keeps locks as well as the slot", ""},
	{6, "call-inside-transaction", "the code calls something slow, over HTTP or SMTP say, while a transaction is open", ""},
	{7, "nested-acquire", "who holds a connection asks the same pool for a second one, and all holders wait for each other", ""},
	{8, "stream-holds-lease", "an export or a slow client keeps its connection until it has read everything", ""},
	{9, "slow-query-pile-up", "queries are slower than they come in, so they pile up", ""},
	{10, "cancel-snowball", "clients give up and ask again while the server works on for the first time", ""},
	{11, "reconnect-stampede", "after a restart every client connects at once, again and again", ""},
	{12, "replicas-times-pool", "pool size × replicas is more than the slots, or than the programs need", ""},
	{13, "hidden-second-pool", "the same program has a second pool: a job runner, migrations, a library", ""},
	{14, "migrate-refused", "every replica migrates when it starts; one does, and the others keep their slots waiting for its lock", ""},
	{15, "lock-queue", "one session has a lock, one waits for a stronger one, and all others wait behind it", ""},
	{16, "probe-connects", "a health probe opens a connection each time", ""},
	{17, "monitor-leaks", "what watches the server piles up connections itself", ""},
	{18, "mail-storm", "one mail for each failed request", "mails leave the application: no session shows them"},
	{19, "event-quota-burned", "one event for each failed request", "events leave the application: no session shows them"},
	{20, "half-open", "the network or the machine of the clients went away silently; their sessions stay", ""},
	{
		21, "prepared-under-pooler", "prepared statements that the pooler's next server connection does not know",
		"errors (26000, 42P05) are in the server's log, not in its state",
	},
	{22, "listen-pins-slot", "each LISTEN keeps a connection for itself", ""},
	{
		23, "acquire-timeout-leaks", "a caller that timed out gets its connection later, and no code returns it",
		"to the server, a connection lost inside the program rests like any other of its pool",
	},
	{
		24, "no-recovery", "the pool does not come back when the server does",
		"a program that gave up has no sessions, like one that does not run",
	},
	{25, "noisy-neighbour", "another application on the same server has the slots", ""},
	{
		26, "session-state-leak", "settings, temporary tables or advisory locks pass on to the next holder",
		"a session's settings and temporary tables are its own: no other session can see them",
	},
	{
		27, "hook-queries", "an error reporter's hook queries the database while a connection is held",
		"the hook's session looks like any other of the program",
	},
	{
		28, "report-amplifies", "an error report that touches the database connects again and again",
		"attempts that find no slot leave no session; those that find one look like too-much-at-once",
	},
	{
		29, "fleet-deploy", "a rolling deploy starts one pool more than the slots have room for, and cuts the requests of the old process",
		"while it lasts, it looks like replicas-times-pool; requests that were cut leave no session",
	},
	{
		30, "fleet-failover", "the application knows the old primary alone, and does not find the one that was promoted",
		"a program that connects to another server has no sessions here",
	},
}

func scenarioOf(name string) *Scenario {
	for i, s := range scenarios {
		if s.Name == name {
			return &scenarios[i]
		}
	}
	return nil
}

// apart says how to distinguish two scenarios that look alike from outside. Each pair is in alphabetical order.
var apart = map[[2]string]string{
	{"missed-close", "thread-leak"}: "send ten requests by one kept-alive client. If each leaves a session, a response is not closed: " +
		"switch instrumentation and middleware off, one at a time. Or each request opens a pool or a client of its own: look for the " +
		"code that does. If one is left for all ten, it is the thread's",
	{"hidden-second-pool", "replicas-times-pool"}: "count the processes at the clients' addresses: one process with sessions under several " +
		"names has several pools; several processes are replicas",
	{"replicas-times-pool", "thread-leak"}: "send ten requests, one after another, and look again: a leak has more sessions than before, a pool as many",
	{"half-open", "replicas-times-pool"}: "on the client's machine, `ss -tn` lists its connections to the server. What the server has and " +
		"it has not, or a machine that does not answer, is half open; what both have is a pool at rest",
	{"leaked-transaction", "lock-queue"}: "look again in a minute: a transaction that is at work has another query by then, or is gone; a leaked one " +
		"has the same pid, the same query, and a minute more",
	{"call-inside-transaction", "leaked-transaction"}: "look again in a minute: calls end, so there are other pids by then; leaked ones are the same, a minute older",
	{"call-inside-transaction", "nested-acquire"}: "look at the program: in a nested acquire all holders wait for the pool itself, and are freed at once " +
		"when its timeout is over; in a call each ends on its own. ddtb's log and /admin/connections/ name a holder that waits",
	{"rows-not-closed", "stream-holds-lease"}: "look again and again: a stream reads on, so its wait (Client/ClientWrite) comes and goes, and it ends; " +
		"a forgotten result waits for ever",
	{"call-inside-transaction", "stream-holds-lease"}: "look at the last query: a stream fetches again and again from its cursor; " +
		"if it stays the same, the program does something else between two fetches",
	{"cancel-snowball", "slow-query-pile-up"}: "compare the sessions with the pools' maximum: more of them than all pools together allow are " +
		"queries whose clients have gone",
	{"reconnect-stampede", "too-much-at-once"}: "look again in some minutes: a stampede ebbs away",
	{"probe-connects", "too-much-at-once"}: "look at what they run, and when: a probe asks the same small thing at even intervals from few addresses; " +
		"requests differ, and follow the load",
	{"lock-queue", "migrate-refused"}: "look at who waits for the advisory lock: programs that have just started, with the same lock, migrate; " +
		"else it is a lock of the application's own",
}

// howToTell returns the text for two scenarios, in any order.
func howToTell(a, b string) string { return apart[[2]string{min(a, b), max(a, b)}] }
