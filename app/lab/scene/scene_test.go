package scene_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"ddtb/app/lab/scene"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServer{m}) }

// server is the lab of all these tests, which run one after the other.
var server *scene.Server

// withServer runs the tests between the start of the lab and its end, so that what that leaves is seen too.
type withServer struct{ *testing.M }

func (m withServer) Run() (code int) {
	var err error
	if server, err = scene.Open(context.Background(), slog.New(slog.DiscardHandler)); err != nil {
		panic(err)
	}
	code = m.M.Run()
	if err := server.Close(); err != nil {
		panic(err)
	}
	return code
}

// connects has each request keep a connection of its own until the end.
func connects(s *scene.Stage) scene.Request {
	return func(ctx context.Context, _ int) error {
		_, err := s.Connect(ctx)
		return err
	}
}

// shares has all requests use one pool.
func shares(s *scene.Stage) scene.Request {
	pool := s.Pool(2)
	return func(ctx context.Context, _ int) error {
		_, err := pool.Exec(ctx, "SELECT 1")
		return err
	}
}

func scenario() *scene.Scenario {
	return &scene.Scenario{
		Number: 1, Name: "test", Figure: "requests refused", FixedBy: "sharing", Slots: 6,
		Load: scene.Load{Requests: 10, Every: 20 * time.Millisecond, Patience: 5 * time.Second}, Fails: connects, Works: shares,
	}
}

func TestARunCountsOnTheServerAndAtTheClient(t *testing.T) {
	s := server
	for range 2 { // the second finds nothing of the first
		r := s.Run(t.Context(), scenario(), scene.Plan{})
		if r.Error != "" || !r.OK() || !r.Reproduced || !r.Fixed {
			t.Fatalf("%+v", r)
		}
		// Two logins at the same moment may refuse each other the last slot.
		if f := r.Failure; f.Value+f.Served != 10 || f.Of != 10 || f.Peak != f.Served || f.Slots != 6 || f.SQLStates["53300"] != f.Value || f.Served < 5 || f.Served > 6 {
			t.Errorf("the failure: %+v", f)
		}
		if f := r.Fix; f.Value != 0 || f.Peak > 2 || f.Peak < 1 || len(f.SQLStates) != 0 || f.Served != 10 {
			t.Errorf("the fix: %+v", f)
		}
		if r.Verdict() != "reproduced; fixed by sharing" {
			t.Errorf("the verdict: %s", r.Verdict())
		}
	}
}

func TestAVerdictCanFail(t *testing.T) {
	s := server
	t.Run("without the fix it is not fixed", func(t *testing.T) {
		r := s.Run(t.Context(), scenario(), scene.Plan{WithoutTheFix: true})
		if r.OK() || r.Fixed || r.Fix.Value < 4 || r.Verdict() != "reproduced; not fixed" {
			t.Errorf("%s: %+v", r.Verdict(), r.Fix)
		}
	})
	t.Run("what does not fail is not reproduced", func(t *testing.T) {
		x := scenario()
		x.Fails = shares
		if r := s.Run(t.Context(), x, scene.Plan{}); r.OK() || r.Verdict() != "not reproduced" {
			t.Error(r.Verdict())
		}
	})
	t.Run("a half alone is judged alone", func(t *testing.T) {
		if r := s.Run(t.Context(), scenario(), scene.Plan{Only: scene.Failure}); !r.OK() || r.Fix != nil || r.Verdict() != "reproduced" {
			t.Errorf("%s: %+v", r.Verdict(), r)
		}
		if r := s.Run(t.Context(), scenario(), scene.Plan{Only: scene.Fix}); !r.OK() || r.Failure != nil || r.Verdict() != "fixed by sharing" {
			t.Errorf("%s: %+v", r.Verdict(), r)
		}
	})
	t.Run("a failure of the stage is no verdict", func(t *testing.T) {
		x := scenario()
		x.Setup = func(s *scene.Stage) { s.Failed(errors.New("no program")) }
		if r := s.Run(t.Context(), x, scene.Plan{}); r.OK() || r.Error != "no program" {
			t.Errorf("%+v", r)
		}
	})
}

func TestLatencyCountsFromTheMomentARequestWasDue(t *testing.T) {
	s := server
	x := scenario()
	x.Load = scene.Load{Requests: 4, Patience: 5 * time.Second} // all at once, on one connection
	x.Fails = func(s *scene.Stage) scene.Request {
		pool := s.Pool(1)
		return func(ctx context.Context, _ int) error {
			_, err := pool.Exec(ctx, "SELECT pg_sleep(0.1)")
			return err
		}
	}
	r := s.Run(t.Context(), x, scene.Plan{Only: scene.Failure})
	if r.Error != "" || r.Failure.P99 < 400 {
		t.Errorf("the last waited for three others, which took 300 ms: %+v, %s", r.Failure, r.Error)
	}
}

func TestARunThatIsStoppedEndsWithinASecond(t *testing.T) {
	s := server
	x := scenario()
	x.Load = scene.Load{Requests: 1, Patience: time.Minute}
	started := make(chan struct{})
	x.Fails = func(s *scene.Stage) scene.Request {
		return func(ctx context.Context, _ int) error {
			conn, err := s.Connect(ctx)
			if err != nil {
				return err
			}
			close(started)
			_, err = conn.Exec(ctx, "SELECT pg_sleep(60)")
			return err
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan *scene.Result)
	go func() { ended <- s.Run(ctx, x, scene.Plan{}) }()
	<-started
	stop()
	began := time.Now()
	if r := <-ended; r.OK() || time.Since(began) > 3*time.Second { // its request would take five
		t.Errorf("after %v: %+v", time.Since(began), r)
	}
}

func TestARestartIsAtTheSameAddress(t *testing.T) {
	s := server
	x := scenario()
	x.Load = scene.Load{Requests: 1, Patience: 20 * time.Second}
	x.Fails = func(s *scene.Stage) scene.Request {
		return func(ctx context.Context, _ int) error {
			conn, err := s.Connect(ctx)
			if err != nil {
				return err
			}
			s.Restart()
			if _, err := conn.Exec(ctx, "SELECT 1"); err == nil {
				return errors.New("the connection survived")
			}
			_, err = s.Connect(ctx)
			return err
		}
	}
	if r := s.Run(t.Context(), x, scene.Plan{Only: scene.Failure}); r.Error != "" || r.Failure.Refused != 0 {
		t.Errorf("%+v: %+v", r, r.Failure)
	}
}

func TestANetworkFallsSilentForTheConnectionsThatAreThere(t *testing.T) {
	s := server
	x := scenario()
	x.Load = scene.Load{Requests: 1, Patience: 10 * time.Second}
	x.Fails = func(s *scene.Stage) scene.Request {
		network := s.Network()
		cc := s.Config()
		network.Direct(cc)
		return func(ctx context.Context, _ int) error { return silence(ctx, s, network, cc) }
	}
	if r := s.Run(t.Context(), x, scene.Plan{Only: scene.Failure}); r.Error != "" || r.Failure.Refused != 0 {
		t.Errorf("%+v: %+v", r, r.Failure)
	}
}

func silence(ctx context.Context, s *scene.Stage, network *scene.Network, cc *pgx.ConnConfig) error {
	old, err := s.ConnectTo(ctx, cc)
	if err != nil {
		return err
	}
	if err := old.Ping(ctx); err != nil {
		return err
	}
	network.Silence()
	soon, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := old.Ping(soon); !errors.Is(err, context.DeadlineExceeded) {
		return errors.Join(errors.New("the old connection is not silent"), err)
	}
	fresh, err := s.ConnectTo(ctx, cc)
	if err != nil {
		return err
	}
	return fresh.Ping(ctx)
}

func TestNothingIsLeftOfALabThatIsClosed(t *testing.T) {
	t.Setenv("TMPDIR", shortDir(t))
	s, err := scene.Open(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Run(t.Context(), scenario(), scene.Plan{Only: scene.Fix}); !r.OK() {
		t.Fatalf("%+v", r)
	}
	other, err := scene.Open(t.Context(), slog.New(slog.DiscardHandler)) // removes what is left of others, not what runs
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Run(t.Context(), scenario(), scene.Plan{Only: scene.Fix}); !r.OK() {
		t.Errorf("after another lab began: %+v", r)
	}
	for range 2 {
		if err := errors.Join(s.Close(), other.Close()); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// shortDir is a temporary directory that the server's user can enter.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
