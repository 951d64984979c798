package db_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

const muxName = "multiplex-test" // application_name of the shared connections

// muxConfig leads to cfg's database without this package.
func muxConfig(t testing.TB, cfg config.Database) *pgx.ConnConfig {
	t.Helper()
	cc, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d dbname=%s user=%s password=%s sslmode=disable application_name=%s",
		cfg.Host, cfg.Port, cfg.Name, cfg.User, cfg.Password.Reveal(), muxName))
	must(t, err)
	return cc
}

// connectsWith is what a multiplexer connects and closes with. open counts the connections that are not closed.
func connectsWith(cc *pgx.ConnConfig) (connect func(context.Context) (*pgx.Conn, error), closeConn func(*pgx.Conn), open *atomic.Int64) {
	open = new(atomic.Int64)
	connect = func(ctx context.Context) (*pgx.Conn, error) {
		c, err := pgx.ConnectConfig(ctx, cc.Copy())
		if err == nil {
			open.Add(1)
		}
		return c, err
	}
	closeConn = func(c *pgx.Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Close(ctx)
		open.Add(-1)
	}
	return connect, closeConn, open
}

// openMultiplexer is closed with the test, and must leave nothing.
func openMultiplexer(t testing.TB, cfg config.Database, s db.MultiplexSettings) *db.Multiplexer {
	t.Helper()
	return openMultiplexerWith(t, muxConfig(t, cfg), s)
}

func openMultiplexerWith(t testing.TB, cc *pgx.ConnConfig, s db.MultiplexSettings) *db.Multiplexer {
	t.Helper()
	dbtest.NoLeaks(t)
	connect, closeConn, open := connectsWith(cc)
	m := db.NewMultiplexer(s, connect, closeConn)
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if n, s := open.Load(), m.Stat(); n != 0 || s.Shared != 0 || s.InFlight != 0 || s.Waiting != 0 {
			t.Errorf("%d connections are left; the multiplexer says %+v", n, s)
		}
	})
	return m
}

// muxTest is a multiplexer on a database of its own.
type muxTest struct {
	*testing.T
	*db.Multiplexer
	cfg     config.Database
	control *pgx.Conn
	killing atomic.Bool // queries may have to be asked again

	echoed, aside atomic.Int64 // aside: those for which every connection was held up, as on a machine that stalls
}

func newMuxTest(t *testing.T, s db.MultiplexSettings) *muxTest {
	t.Helper()
	cfg := dbtest.Config(t)
	m := newMuxTestOver(t, cfg, muxConfig(t, cfg), s)
	return m
}

// newMuxTestOver is one that connects to cfg's database with cc.
func newMuxTestOver(t *testing.T, cfg config.Database, cc *pgx.ConnConfig, s db.MultiplexSettings) *muxTest {
	t.Helper()
	control := dbtest.Control(t, cfg)
	if direct := cc.Port == uint16(cfg.Port); direct {
		t.Cleanup(func() {
			dbtest.Eventually(t, "no backend is left", func() bool { return dbtest.Backends(t, control, muxName) == 0 })
		})
	}
	m := &muxTest{T: t, cfg: cfg, control: control, Multiplexer: openMultiplexerWith(t, cc, s)}
	t.Cleanup(m.mostlyShared)
	return m
}

func (m *muxTest) exec(sql string) {
	m.Helper()
	if _, err := m.control.Exec(context.Background(), sql); err != nil {
		m.Fatal(err)
	}
}

// echo asks for a number, and fails the test unless it comes back.
func (m *muxTest) echo(n int) {
	m.Helper()
	got, err := muxNumber(context.Background(), m.Multiplexer, `SELECT $1::int`, n)
	if errors.Is(err, db.ErrUnsuitable) {
		m.aside.Add(1)
	}
	for began := time.Now(); errors.Is(err, db.ErrUnsuitable) && time.Since(began) < 5*time.Second; {
		<-time.After(10 * time.Millisecond) // as long as a lease might take: the statement may be unsuitable for a second
		got, err = muxNumber(context.Background(), m.Multiplexer, `SELECT $1::int`, n)
	}
	m.echoed.Add(1)
	switch {
	case m.killing.Load() && db.Retryable(err):
	case err != nil || got != n:
		m.Errorf("asked for %d, got %d, %v", n, got, err)
	}
}

// mostlyShared fails the test if more than one query in four needed a connection of its own.
func (m *muxTest) mostlyShared() {
	m.Helper()
	if all, aside := m.echoed.Load(), m.aside.Load(); aside*4 > all {
		m.Errorf("%d of %d queries needed a connection of their own", aside, all)
	}
}

func muxNumber(ctx context.Context, m *db.Multiplexer, sql string, args ...any) (int, error) {
	rows, err := m.Query(ctx, sql, args...)
	if err != nil {
		return 0, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
}

func muxCode(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return fmt.Sprint(err)
}

// during calls side as long as f runs, side by side with it.
func (m *muxTest) during(f func(), side func()) {
	m.Helper()
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					side()
				}
			}
		})
	}
	defer wg.Wait()
	defer close(done)
	f()
}

func (m *muxTest) echoes() func() {
	var n atomic.Int64
	return func() { m.echo(int(n.Add(1))) }
}

// inTime fails the test if f takes longer than the neighbour of a slow statement may wait.
func (m *muxTest) inTime(f func()) {
	m.Helper()
	begin := time.Now()
	if f(); time.Since(begin) > 20*db.MultiplexStuckAfter {
		m.Errorf("it took %v %+v", time.Since(begin), m.Stat())
	}
}

func TestAMultiplexerAnswersAsPgxDoes(t *testing.T) {
	m := newMuxTest(t, db.MultiplexSettings{})
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{`SELECT 1`, nil},
		{`SELECT`, nil},
		{`SELECT FROM generate_series(1, 3)`, nil},
		{`SELECT 1 WHERE false`, nil},
		{`SELECT $1::int, $2::text, $3::text`, []any{7, "seven", nil}},
		{`SELECT $1::text[], $2::jsonb, $3::numeric, $4::interval`, []any{[]string{"a", "b"}, map[string]any{"k": 1.0}, "12.50", time.Hour}},
		{`SELECT '{1,2}'::int[], 'x'::"char", 'a=>b'::text, '1.2.3.4'::inet, '\xff'::bytea, now() - now(), pg_typeof(1), point(1, 2)`, nil},
		{`SELECT n, repeat('x', n) FROM generate_series(0, 100) n`, nil},
		{`SELECT @a::int + @b::int`, []any{pgx.NamedArgs{"a": 1, "b": 2}}},
		{`VALUES (1, 'a'), (2, NULL)`, nil},
		{`SHOW server_version`, nil},
		{`EXPLAIN (COSTS false) SELECT 1`, nil},
		{`SELECT 1/0`, nil},
		{`SELECT nonsense`, nil},
		{`SELECT 1; SELECT 2`, nil},
		{`SELECT $1::int`, []any{"a word"}},
		{`SELECT $1::int`, []any{1 << 40}},
		{`SELECT $1::int`, nil},
		{`SELECT $1::text`, []any{"zero\x00byte"}},
	} {
		for range 3 { // described, prepared on one connection, prepared on the other
			want, wantTag, wantErr := everything(m.control.Query(context.Background(), q.sql, q.args...))
			got, gotTag, gotErr := everything(m.Query(context.Background(), q.sql, q.args...))
			if got != want {
				t.Errorf("%s: got %s, want %s", q.sql, got, want)
			}
			if gotTag != wantTag {
				t.Errorf("%s: got the tag %q, want %q", q.sql, gotTag, wantTag)
			}
			if errors.Is(gotErr, db.ErrUnsuitable) && strings.Contains(fmt.Sprint(wantErr), "args[") || strings.Contains(fmt.Sprint(wantErr), "arguments") {
				continue // pgx can't encode them either
			}
			if muxCode(gotErr) != muxCode(wantErr) {
				t.Errorf("%s: got the error %v, want %v", q.sql, gotErr, wantErr)
			}
		}
	}
}

// everything that a query returns, as text.
func everything(rows pgx.Rows, err error) (text, tag string, _ error) {
	if err != nil {
		return "", "", err
	}
	var b strings.Builder
	for rows.Next() {
		for _, f := range rows.FieldDescriptions() {
			fmt.Fprint(&b, f.Name, " ", f.DataTypeOID, " ", f.Format, " ")
		}
		values, err := rows.Values()
		fmt.Fprintf(&b, "%q %v %v\n", rows.RawValues(), values, err)
	}
	if rows.Err() != nil {
		return "", "", rows.Err()
	}
	return b.String(), rows.CommandTag().String(), nil
}

func TestMultiplexedRowsAreReadAsThoseOfPgx(t *testing.T) {
	m := newMuxTest(t, db.MultiplexSettings{})
	query := func() pgx.Rows {
		rows, err := m.Query(t.Context(), `SELECT n AS id, NULLIF('row ' || n, 'row 2') AS text FROM generate_series(1, 3) n`)
		must(t, err)
		return rows
	}
	t.Run("into structs by name", func(t *testing.T) {
		list, err := pgx.CollectRows(query(), pgx.RowToAddrOfStructByName[struct {
			ID   int
			Text *string
		}])
		if err != nil || len(list) != 3 || list[1].Text != nil || *list[2].Text != "row 3" {
			t.Errorf("%v, %v", list, err)
		}
	})
	t.Run("into targets whose types differ from row to row", func(t *testing.T) {
		rows := query()
		var small int16
		var large int64
		for i, target := range []any{&small, &large, nil} {
			if !rows.Next() {
				t.Fatal("no row", i)
			}
			if err := rows.Scan(target, nil); err != nil {
				t.Error(err)
			}
		}
		if rows.Next() || small != 1 || large != 2 {
			t.Error(small, large)
		}
	})
	t.Run("a scan that fails closes them, and Err says why", func(t *testing.T) {
		rows := query()
		rows.Next()
		err := rows.Scan(new(bool), nil)
		if scan, ok := errors.AsType[pgx.ScanArgError](err); !ok || scan.FieldName != "id" {
			t.Error(err)
		}
		if rows.Next() || !errors.Is(rows.Err(), err) {
			t.Error(rows.Err())
		}
	})
	t.Run("the wrong number of targets is an error", func(t *testing.T) {
		rows := query()
		rows.Next()
		if err := rows.Scan(new(int)); err == nil {
			t.Error("no error")
		}
	})
	t.Run("closed early, nothing more can be read", func(t *testing.T) {
		rows := query()
		rows.Next()
		rows.Close()
		rows.Close()
		if _, err := rows.Values(); rows.Next() || rows.RawValues() != nil || err == nil || rows.Err() != nil {
			t.Error(err, rows.Err())
		}
	})
}

func TestWhatOneCallerDoesIsNoOtherCallersConcern(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(m *muxTest)
	}{
		{"an error of the server", (*muxTest).failsOnTheServer},
		{"an argument that can't be encoded", (*muxTest).failsToEncode},
		{"a panic while arguments are encoded", (*muxTest).panicsWhileEncoding},
		{"a panic in a scan", (*muxTest).panicsInAScan},
		{"a caller that leaves", (*muxTest).leaves},
		{"a caller that leaves a statement that never ends", (*muxTest).leavesForEver},
		{"a slow statement whose caller waits", (*muxTest).isSlow},
		{"a slow reader", (*muxTest).readsSlowly},
		{"a result that is too large", (*muxTest).asksForTooMuch},
		{"a value that is too large", (*muxTest).asksForATooLargeValue},
		{"a statement that is no read", (*muxTest).doesNotRead},
		{"a statement that the server cuts short", (*muxTest).isCutShort},
		{"a column that changes its type", (*muxTest).changesAType},
		{"prepared statements that are deallocated", (*muxTest).deallocates},
		{"a backend that is killed", (*muxTest).killsBackends},
		{"more statements than are kept prepared", (*muxTest).asksForManyThings},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMuxTest(t, db.MultiplexSettings{MaxResult: 64 << 10})
			m.echo(0)
			m.during(func() { c.do(m) }, m.echoes())
		})
	}
}

func (m *muxTest) failsOnTheServer() {
	for range 50 {
		for sql, code := range map[string]string{
			`SELECT 1/0`: "22012", `SELECT nonsense`: "42703", `SELECT FROM nowhere`: "42P01", `nonsense`: "42601",
			`SELECT ('x' || $1)::int`: "22P02",
		} {
			args := []any{"y"}[:strings.Count(sql, "$1")]
			_, err := m.Query(context.Background(), sql, args...)
			for began := time.Now(); errors.Is(err, db.ErrUnsuitable) && time.Since(began) < 5*time.Second; { // as in echo
				<-time.After(10 * time.Millisecond)
				_, err = m.Query(context.Background(), sql, args...)
			}
			if muxCode(err) != code {
				m.Errorf("%s: %v", sql, err)
			}
		}
	}
}

func (m *muxTest) failsToEncode() {
	for _, arg := range []any{1 << 40, struct{}{}, make(chan int)} {
		if _, err := m.Query(context.Background(), `SELECT $1::int`, arg); !errors.Is(err, db.ErrUnsuitable) {
			m.Errorf("%v: %v", arg, err)
		}
	}
}

type panicking struct{}

func (panicking) TextValue() (_ struct{}, _ error) { panic("in TextValue") }
func (panicking) MarshalJSON() (_ []byte, _ error) { panic("in MarshalJSON") }
func (*panicking) Scan(any) error                  { panic("in Scan") }
func (m *muxTest) mustPanic(f func())              { defer m.recovered(); f() }
func (m *muxTest) recovered() {
	m.Helper()
	if recover() == nil {
		m.Error("no panic")
	}
}

func (m *muxTest) panicsWhileEncoding() {
	for range 20 {
		m.mustPanic(func() { _, _ = m.Query(context.Background(), `SELECT $1::jsonb`, panicking{}) })
	}
}

func (m *muxTest) panicsInAScan() {
	for range 20 {
		rows, err := m.Query(context.Background(), `SELECT 'x'`)
		if err != nil {
			m.Fatal(err)
		}
		rows.Next()
		m.mustPanic(func() { _ = rows.Scan(&panicking{}) })
	}
}

func (m *muxTest) leaves() {
	for i := range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*10*time.Microsecond)
		if got, err := muxNumber(ctx, m.Multiplexer, `SELECT $1::int + 0 * length(pg_sleep(0.001)::text)`, i); err == nil && got != i {
			m.Errorf("got %d, want %d", got, i)
		} else if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			m.Error(err)
		}
		cancel()
	}
}

func (m *muxTest) running(sql string) int {
	return m.count(`state = 'active' AND query LIKE '%` + sql + `%' AND pid <> pg_backend_pid()`)
}

func (m *muxTest) count(where string) (n int) {
	m.Helper()
	if err := m.control.QueryRow(context.Background(),
		`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND `+where).Scan(&n); err != nil {
		m.Fatal(err)
	}
	return n
}

func (m *muxTest) leavesForEver() {
	for range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := m.Query(ctx, `SELECT pg_sleep(3600)`); !errors.Is(err, context.Canceled) {
				m.Error(err)
			}
		})
		dbtest.Eventually(m, "the statement runs", func() bool { return m.running("pg_sleep") == 1 })
		cancel()
		m.inTime(wg.Wait)
		m.inTime(func() {
			dbtest.Eventually(m, "the server gave it up", func() bool { return m.running("pg_sleep") == 0 })
		})
	}
}

func (m *muxTest) isSlow() {
	var wg sync.WaitGroup
	wg.Go(func() {
		if rows, err := m.Query(context.Background(), `SELECT pg_sleep(2)`); err != nil {
			m.Error(err)
		} else if _, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[any]); err != nil {
			m.Error(err)
		}
	})
	dbtest.Eventually(m, "the statement runs", func() bool { return m.running("pg_sleep") == 1 })
	for i := range 20 {
		m.inTime(func() { m.echo(i) })
	}
	if m.running("pg_sleep") != 1 {
		m.Error("the others waited for the slow statement")
	}
	wg.Wait()
}

func (m *muxTest) readsSlowly() {
	rows, err := m.Query(context.Background(), `SELECT n FROM generate_series(0, 999) n`)
	if err != nil {
		m.Fatal(err)
	}
	for i := 0; rows.Next(); i++ {
		var n int
		if err := rows.Scan(&n); err != nil || n != i {
			m.Fatal(n, err)
		}
		m.echo(n)
	}
	if rows.Err() != nil || rows.CommandTag().RowsAffected() != 1000 {
		m.Error(rows.Err(), rows.CommandTag())
	}
}

func (m *muxTest) asksForTooMuch() {
	for range 3 {
		m.inTime(func() {
			if _, err := m.Query(context.Background(), `SELECT repeat('x', 1000), generate_series(1, (SELECT 20000000))`); !errors.Is(err, db.ErrUnsuitable) {
				m.Error(err)
			}
		})
	}
	m.inTime(func() {
		dbtest.Eventually(m, "the server gave it up", func() bool { return m.running("repeat") == 0 })
	})
}

func (m *muxTest) asksForATooLargeValue() {
	for range 3 {
		if _, err := m.Query(context.Background(), `SELECT repeat('x', 10000000)`); !errors.Is(err, db.ErrUnsuitable) {
			m.Error(err)
		}
	}
}

func (m *muxTest) doesNotRead() {
	for _, sql := range []string{
		`BEGIN`, `SET search_path = nowhere`, `LISTEN x`, `CREATE TABLE x ()`, `COPY polls_question TO STDOUT`, ``,
		`DECLARE c CURSOR WITH HOLD FOR SELECT 1`, `PREPARE x AS SELECT 1`, `DELETE FROM polls_question`,
	} {
		if _, err := m.Query(context.Background(), sql); !errors.Is(err, db.ErrUnsuitable) {
			m.Errorf("%s: %v", sql, err)
		}
	}
}

// isCutShort: the server's own bound on a statement's time is an answer for its caller alone.
func (m *muxTest) isCutShort() {
	m.exec(`CREATE FUNCTION cut_short() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN 1; END $$`)
	for range 10 {
		if _, err := m.Query(context.Background(), `SELECT cut_short()`); muxCode(err) != "57014" {
			m.Error(err)
		}
	}
}

func (m *muxTest) changesAType() {
	m.exec(`CREATE TABLE t (n int8 NOT NULL, x int); INSERT INTO t VALUES (1, 1); GRANT SELECT ON t TO PUBLIC`)
	for i := range 20 {
		for _, kind := range []string{"float8", "text", "int4", "numeric", "int8"} {
			m.exec(`ALTER TABLE t ALTER n TYPE ` + kind + ` USING n::text::` + kind)
			m.exec(fmt.Sprintf(`ALTER TABLE t DROP COLUMN x; ALTER TABLE t ADD COLUMN x int NOT NULL DEFAULT %d`, i))
			for range 4 {
				rows, err := m.Query(context.Background(), `SELECT * FROM t WHERE n = $1`, map[bool]any{true: "1", false: 1}[kind == "text"])
				if errors.Is(err, db.ErrUnsuitable) { // the argument doesn't fit the type that the column had
					continue
				}
				if err != nil {
					m.Fatal(kind, err)
				}
				got, err := pgx.CollectExactlyOneRow(rows, pgx.RowToMap)
				if err != nil || fmt.Sprint(got["x"]) != strconv.Itoa(i) || (kind != "numeric" && fmt.Sprint(got["n"]) != "1") {
					m.Fatal(kind, got, err)
				}
			}
		}
	}
}

func (m *muxTest) deallocates() {
	m.exec(`CREATE FUNCTION forget() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DEALLOCATE ALL; RETURN 1; END $$`)
	for range 20 {
		if _, err := m.Query(context.Background(), `SELECT forget()`); err != nil {
			m.Error(err)
		}
	}
}

func (m *muxTest) killsBackends() {
	m.killing.Store(true)
	for range 10 {
		m.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '` + muxName + `'`)
		dbtest.Eventually(m, "it serves again", func() bool {
			_, err := muxNumber(context.Background(), m.Multiplexer, `SELECT 1`)
			switch {
			case errors.Is(err, db.ErrUnsuitable):
				m.aside.Add(1)
			case err != nil && !db.Retryable(err):
				m.Error(err)
			}
			return err == nil
		})
	}
}

func (m *muxTest) asksForManyThings() {
	for i := range 600 {
		if got, err := muxNumber(context.Background(), m.Multiplexer, fmt.Sprintf(`SELECT %d + $1::int`, i), 1); err != nil || got != i+1 {
			m.Error(got, err)
		}
	}
}
