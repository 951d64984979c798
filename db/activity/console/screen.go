package console

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2" // draws, reads keys, and always restores the terminal

	"ddtb/db/activity"
)

// Watch configures the full screen.
type Watch struct {
	Poller     activity.Poller
	Thresholds activity.Thresholds
	Interval   time.Duration
	In         io.Reader
	Out        io.Writer
	Environ    []string // of the terminal: TERM, NO_COLOR
	Colour     bool
}

// Run shows the connections on the whole terminal until q is pressed or ctx ends.
func (w Watch) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newScreen(ctx, w)
	s.sampler = activity.StartSampler(w.Poller, w.Interval, func() activity.Thresholds { return w.Thresholds })
	defer s.sampler.Stop()
	p := tea.NewProgram(s, tea.WithInput(w.In), tea.WithOutput(w.Out),
		tea.WithEnvironment(w.Environ), tea.WithoutSignalHandler())
	defer context.AfterFunc(ctx, p.Quit)() // not WithContext, which does not stop the goroutine that reads the keys
	if _, err := p.Run(); err != nil {
		return fmt.Errorf("the full screen: %w", err)
	}
	return nil
}

// screen is the state of the full screen. Only Update changes it; polls and signals run concurrently.
type screen struct {
	Watch
	ctx           context.Context
	width, height int

	sampler *activity.Sampler
	last    activity.Reading
	now     activity.Snapshot // the last successful snapshot; zero: none yet
	history []float64         // utilisation, the newest last

	sort      int // index into orders
	reverse   bool
	filter    string
	typing    bool                // typing a filter
	selected  int32               // a PID, because rows move
	marked    map[int32]time.Time // PIDs that c and t apply to, and when their sessions began
	page      page
	question  *question
	message   string
	rowsShown int
}

// question must be answered with y before sessions are signalled.
type question struct {
	text     string
	cancel   bool
	sessions []activity.Session
}

const mostHistory = 500

func newScreen(ctx context.Context, w Watch) *screen {
	return &screen{Watch: w, ctx: ctx, width: 80, height: 24, marked: map[int32]time.Time{}}
}

// signalled is the message to Update after sessions were signalled. After a poll it is the activity.Reading.
type signalled struct{ endings []activity.Ending }

// Init is part of tea.Model.
func (s *screen) Init() tea.Cmd { return s.next }

// next waits for the next reading, or the end.
func (s *screen) next() tea.Msg {
	r, err := s.sampler.Next(s.ctx, s.last)
	if err != nil {
		return nil
	}
	return r
}

// Update is part of tea.Model.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch m := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = m.Width, m.Height
	case activity.Reading:
		s.take(m)
		return s, s.next
	case signalled:
		s.message = outcomes(m.endings)
		clear(s.marked)
	case tea.KeyPressMsg:
		return s, s.key(m)
	}
	return s, nil
}

// take stores the result of a poll.
func (s *screen) take(r activity.Reading) {
	if s.last = r; r.Err == nil {
		s.now = r.Snapshot
		s.history = append(s.history, s.now.Slots.Utilisation())
		s.history = s.history[max(0, len(s.history)-mostHistory):]
	}
}

func (s *screen) key(k tea.KeyPressMsg) tea.Cmd {
	switch {
	case k.String() == "ctrl+c":
		return tea.Quit
	case s.question != nil:
		return s.answer(k)
	case s.typing:
		s.typeFilter(k)
		return nil
	}
	s.message = ""
	if s.turn(k.String()) {
		return nil
	}
	switch k.String() {
	case "q":
		return tea.Quit
	case "space":
		s.mark()
	case "up", "k":
		s.move(-1)
	case "down", "j":
		s.move(1)
	case "pgup":
		s.move(-s.rowsShown)
	case "pgdown":
		s.move(s.rowsShown)
	case "home":
		s.move(-len(s.now.Sessions))
	case "end":
		s.move(len(s.now.Sessions))
	case "s":
		s.sort = (s.sort + 1) % len(orders)
	case "r":
		s.reverse = !s.reverse
	case "/":
		s.typing = true
	case "esc":
		s.filter = ""
		clear(s.marked)
	case "c":
		s.ask(true)
	case "t":
		s.ask(false)
	}
	return nil
}

func (s *screen) typeFilter(k tea.KeyPressMsg) {
	switch k.String() {
	case "enter":
		s.typing = false
	case "esc":
		s.typing, s.filter = false, ""
	case "backspace":
		if r := []rune(s.filter); len(r) > 0 {
			s.filter = string(r[:len(r)-1])
		}
	default:
		if len(s.filter) < 100 {
			s.filter += k.Text
		}
	}
}

// answer accepts y as yes, and any other key as no.
func (s *screen) answer(k tea.KeyPressMsg) tea.Cmd {
	q := s.question
	s.question = nil
	if k.String() != "y" && k.String() != "Y" {
		s.message = "nothing was done"
		return nil
	}
	s.message = "…"
	return func() tea.Msg { return signalled{s.signal(q)} }
}

// signal signals one session after another. Each order applies to the state in which the session was shown: a session
// that has changed since is left alone.
func (s *screen) signal(q *question) (endings []activity.Ending) {
	for _, x := range q.sessions {
		e, err := activity.Ending{Session: x}, error(nil)
		if q.cancel {
			e, err = activity.Cancel(s.ctx, s.Poller, x, true)
		} else {
			e.Outcome, err = s.Poller.Signal(s.ctx, activity.Order{PID: x.PID, Started: x.Started, States: []string{x.State}, Superusers: true})
		}
		if err != nil {
			e.Outcome, e.Error = activity.Failed, err.Error()
		}
		endings = append(endings, e)
	}
	return endings
}

// outcomes returns the result in one line: of one session, or the number of each outcome.
func outcomes(endings []activity.Ending) string {
	if len(endings) == 1 {
		e := endings[0]
		return fmt.Sprintf("pid %d: %s", e.PID, Clean(cmp.Or(e.Error, string(e.Outcome))))
	}
	n, texts := map[activity.Outcome]int{}, []string{}
	for _, e := range endings {
		n[e.Outcome]++
	}
	for _, o := range slices.Sorted(maps.Keys(n)) {
		texts = append(texts, fmt.Sprintf("%d %s", n[o], o))
	}
	return strings.Join(texts, ", ")
}

// ask asks whether to end the marked sessions, or their queries. If none is marked, it asks about the selected one.
func (s *screen) ask(cancel bool) {
	sessions, refused := []activity.Session{}, ""
	for _, x := range s.targets() {
		if why := untouchable(x, cancel); why != "" {
			refused = why
			continue
		}
		sessions = append(sessions, x)
	}
	what := "End "
	if cancel {
		what = "Cancel the query of "
	}
	switch {
	case len(sessions) == 0:
		s.message = cmp.Or(refused, "no session is selected")
	case len(sessions) == 1:
		x := sessions[0]
		owner := ""
		if x.Superuser {
			owner = ", a superuser's"
		}
		s.question = &question{
			fmt.Sprintf("%ssession %d (%s%s, %s)? [y/N]", what, x.PID, Clean(x.Who()), owner, Clean(x.State)), cancel, sessions,
		}
	default:
		if refused != "" {
			refused = "; " + refused
		}
		s.question = &question{fmt.Sprintf("%s%d sessions%s? [y/N]", what, len(sessions), refused), cancel, sessions}
	}
}

// targets returns the marked sessions that still exist or, if none is marked, the selected one.
func (s *screen) targets() (sessions []activity.Session) {
	if len(s.marked) == 0 {
		if x, ok := s.chosen(); ok {
			sessions = append(sessions, x)
		}
		return sessions
	}
	for _, x := range s.now.Sessions {
		if s.isMarked(x) {
			sessions = append(sessions, x)
		}
	}
	return sessions
}

func (s *screen) isMarked(x activity.Session) bool {
	began, is := s.marked[x.PID]
	return is && began.Equal(x.Started)
}

// untouchable returns why a session can't be ended from here, or its query cancelled; "" if it can.
func untouchable(x activity.Session, cancel bool) string {
	switch {
	case x.Self:
		return "that is this monitor itself"
	case !x.Client():
		return fmt.Sprintf("pid %d is the server's own: %s", x.PID, Clean(x.Kind))
	case x.Hidden:
		return fmt.Sprintf("pid %d is another role's, and this one may not see what it does: it is left alone", x.PID)
	case cancel && x.State != activity.Active:
		return fmt.Sprintf("pid %d runs no query", x.PID)
	}
	return ""
}

// mark toggles the mark of the selected session and selects the next.
func (s *screen) mark() {
	x, ok := s.chosen()
	if !ok {
		s.move(0)
		return
	}
	if s.isMarked(x) {
		delete(s.marked, x.PID)
	} else {
		s.marked[x.PID] = x.Started
	}
	s.move(1)
}

// orders are the ways to sort sessions. The first is by gravity.
var orders = []struct {
	name    string
	compare func(a, b activity.Session) int
}{
	{"trouble", func(a, b activity.Session) int {
		return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(b.InState, a.InState))
	}},
	{"time", func(a, b activity.Session) int { return cmp.Compare(b.InState, a.InState) }},
	{"application", func(a, b activity.Session) int { return cmp.Compare(a.Application, b.Application) }},
	{"user", func(a, b activity.Session) int { return cmp.Compare(a.User, b.User) }},
	{"database", func(a, b activity.Session) int { return cmp.Compare(a.Database, b.Database) }},
	{"client", func(a, b activity.Session) int { return cmp.Compare(a.Address, b.Address) }},
	{"state", func(a, b activity.Session) int { return cmp.Compare(a.State, b.State) }},
	{"pid", func(a, b activity.Session) int { return cmp.Compare(a.PID, b.PID) }},
}

// rank is how urgent a session's state is.
func rank(x activity.Session) int {
	switch {
	case x.Waits:
		return 4
	case x.InTransactionIdle():
		return 3
	case x.State == activity.Active && !x.Self:
		return 2
	case x.State == activity.Idle:
		return 1
	}
	return 0
}

// rows returns the client sessions that match the filter, in order.
func (s *screen) rows() (rows []activity.Session) {
	wanted := strings.ToLower(s.filter)
	for _, x := range s.now.Sessions {
		text := fmt.Sprint(x.PID, x.Application, " ", x.User, " ", x.Database, " ", x.Address, " ", x.State, " ", x.Query)
		if x.Client() && strings.Contains(strings.ToLower(text), wanted) {
			rows = append(rows, x)
		}
	}
	blocks := s.now.Blocks()
	slices.SortStableFunc(rows, func(a, b activity.Session) int {
		c := orders[s.sort].compare(a, b)
		if s.sort == 0 && blocks[a.PID] != blocks[b.PID] { // all others wait for these
			c = 1
			if blocks[a.PID] {
				c = -1
			}
		}
		if s.reverse {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.PID, b.PID))
	})
	return rows
}

// chosen returns the selected session, if it is among the rows.
func (s *screen) chosen() (activity.Session, bool) {
	rows := s.rows()
	i := s.cursor(rows)
	if i < 0 {
		return activity.Session{}, false
	}
	return rows[i], true
}

func (s *screen) cursor(rows []activity.Session) int {
	return slices.IndexFunc(rows, func(x activity.Session) bool { return x.PID == s.selected })
}

// move selects another row; without a selection, the first.
func (s *screen) move(by int) {
	rows := s.rows()
	if len(rows) == 0 {
		return
	}
	i := s.cursor(rows)
	if i < 0 {
		i, by = 0, 0
	}
	s.selected = rows[min(max(0, i+by), len(rows)-1)].PID
}
