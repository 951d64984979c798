package recipes

// The version of the documentation that each recipe was checked against, and its address.
var (
	pgxDocs        = docs{"Go (pgx)", "pgx 5.12", "https://pkg.go.dev/github.com/jackc/pgx/v5/pgxpool"}
	djangoDocs     = docs{"Django with psycopg", "Django 6.1 and 5.2, psycopg_pool 3.3", "https://docs.djangoproject.com/en/6.1/ref/databases/#connection-pool"}
	sqlalchemyDocs = docs{"SQLAlchemy", "SQLAlchemy 2.0 and 2.1 beta", "https://docs.sqlalchemy.org/en/20/core/pooling.html"}
	railsDocs      = docs{"Rails", "Rails 8.1", "https://api.rubyonrails.org/classes/ActiveRecord/ConnectionAdapters/ConnectionPool.html"}
	nodeDocs       = docs{"node-postgres", "pg 8.23", "https://node-postgres.com/apis/pool"}
	hikariDocs     = docs{"Java (HikariCP)", "HikariCP 7.1, pgjdbc 42.7", "https://github.com/brettwooldridge/HikariCP#gear-configuration-knobs-baby"}
	laravelDocs    = docs{"PHP (Laravel)", "Laravel 13", "https://laravel.com/docs/13.x/database"}
	bouncerDocs    = docs{"PgBouncer", "PgBouncer 1.26", "https://www.pgbouncer.org/config.html"}
)

var groups = map[string]*Group{
	"leaks": {Lead: "Release the connection on every path, and close connections that have been idle for long.", Stacks: []Recipe{
		pgxDocs.recipe(`lease, err := pool.Acquire(ctx) // ctx has the timeout of the acquire
if err != nil {
	return err
}
defer lease.Release()
// rows: defer rows.Close() right after Query
// in the configuration: cfg.MaxConnIdleTime = 5 * time.Minute`),
		djangoDocs.recipe(`# settings.py: a pool belongs to the process, not to a thread
DATABASES["default"]["CONN_MAX_AGE"] = 0  # required with a pool
DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 4, "timeout": 10, "max_idle": 300}}
# in a thread of your own, at its end:
from django.db import connections
connections.close_all()`),
		sqlalchemyDocs.recipe(`with Session(engine) as session:          # closes on every path
    rows = session.scalars(select(Poll)).all()  # reads to the end
engine = create_engine(url, pool_size=5, max_overflow=0, pool_timeout=10, pool_use_lifo=True)`),
		railsDocs.recipe(`# in a thread of your own
ActiveRecord::Base.connection_pool.with_connection do |connection|
  # …
end                       # releases it
# config/database.yml
#   idle_timeout: 300`),
		nodeDocs.recipe(`const client = await pool.connect();
try {
  await client.query("SELECT …");
} finally {
  client.release();       // on every path
}
// or, for one statement: await pool.query("SELECT …")`),
		hikariDocs.recipe(`config.setLeakDetectionThreshold(30_000); // logs the stack of each holder after 30 s
try (Connection c = dataSource.getConnection();
     PreparedStatement s = c.prepareStatement(sql)) {
  // closed on every path
}`),
		laravelDocs.recipe(`// php-fpm: one connection for each worker, so pm.max_children is the bound.
// Do not set PDO::ATTR_PERSISTENT. In a command that runs for long:
DB::disconnect();   // while it waits`),
		bouncerDocs.recipe(`[pgbouncer]
; a leaked client connection costs no slot, unless it is in a transaction
pool_mode = transaction
server_idle_timeout = 60
client_idle_timeout = 3600`),
	}},
	"pool": {Lead: "Bound the connections of the whole fleet below the usable slots, and bound the wait.", Stacks: []Recipe{
		pgxDocs.recipe(`cfg.MaxConns = 5             // usable slots ÷ (replicas × 2), less what migrations need
ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // pgxpool has no acquire timeout of its own
defer cancel()
lease, err := pool.Acquire(ctx)
// cfg.ConnConfig.RuntimeParams["statement_timeout"] = "5s"`),
		djangoDocs.recipe(`DATABASES["default"]["CONN_MAX_AGE"] = 0
DATABASES["default"]["OPTIONS"] = {
    "pool": {"min_size": 1, "max_size": 4, "timeout": 2, "max_waiting": 20},
    "options": "-c statement_timeout=5s",
}  # for each worker process: workers × replicas × max_size must fit`),
		sqlalchemyDocs.recipe(`engine = create_engine(
    url, pool_size=5, max_overflow=0,   # the default overflow of 10 is on top of the size
    pool_timeout=2,
    connect_args={"options": "-c statement_timeout=5s"},
)`),
		railsDocs.recipe(`# config/database.yml, for each process (before 8.1: pool)
production:
  max_connections: <%= ENV.fetch("RAILS_MAX_THREADS", 5) %>
  checkout_timeout: 2
  variables:
    statement_timeout: 5s`),
		nodeDocs.recipe(`const pool = new Pool({
  max: 5,
  connectionTimeoutMillis: 2000, // the default, 0, waits for ever
  statement_timeout: 5000,
});`),
		hikariDocs.recipe(`config.setMaximumPoolSize(5);
config.setConnectionTimeout(2_000);  // the default is 30 s
config.addDataSourceProperty("options", "-c statement_timeout=5s");`),
		laravelDocs.recipe(`; php-fpm, www.conf: one connection for each child
pm = static
pm.max_children = 5
; queue workers and the scheduler count too`),
		bouncerDocs.recipe(`[pgbouncer]
pool_mode = transaction
default_pool_size = 15
; over all users of a database: below the usable slots
max_db_connections = 15
; the default is 120 s
query_wait_timeout = 5`),
	}},
	"transaction": {Lead: "Hold a connection for the statements only, and let the server end forgotten transactions.", Stacks: []Recipe{
		pgxDocs.recipe(`err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
	return save(ctx, tx) // pass tx on; no call to other services in here
})
cfg.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "10s"`),
		djangoDocs.recipe(`answer = call_payment_service()      # before the transaction
with transaction.atomic():
    order.save()
# mails and tasks: transaction.on_commit(send_mail)
DATABASES["default"]["OPTIONS"] = {"options": "-c idle_in_transaction_session_timeout=10s"}
# leave ATOMIC_REQUESTS off for views that stream or call others`),
		sqlalchemyDocs.recipe(`answer = call_payment_service()      # before the transaction
with Session(engine) as session, session.begin():
    session.add(order)               # commits, or rolls back
create_engine(url, connect_args={"options": "-c idle_in_transaction_session_timeout=10s"})`),
		railsDocs.recipe(`answer = PaymentService.call         # before the transaction
Order.transaction { order.save! }
# after_commit for mails and jobs
# config/database.yml
#   variables:
#     idle_in_transaction_session_timeout: 10s
#     lock_timeout: 2s                # for migrations`),
		nodeDocs.recipe(`const client = await pool.connect();
try {
  await client.query("BEGIN");
  await save(client);                // pass the client on, not the pool
  await client.query("COMMIT");
} catch (e) {
  await client.query("ROLLBACK");
  throw e;
} finally {
  client.release();
}
// new Pool({ idle_in_transaction_session_timeout: 10000, lock_timeout: 2000 })`),
		hikariDocs.recipe(`// Spring: call others outside of @Transactional, and turn off
// spring.jpa.open-in-view, which keeps the connection until the view is rendered
config.addDataSourceProperty("options",
    "-c idle_in_transaction_session_timeout=10s -c lock_timeout=2s");`),
		laravelDocs.recipe(`$answer = $payments->charge($order);     // before the transaction
DB::transaction(fn () => $order->save()); // commits, or rolls back
// jobs: ->afterCommit()`),
		bouncerDocs.recipe(`[pgbouncer]
idle_transaction_timeout = 10
; A SET of a session does not work in transaction mode, nor do the -c options of a connection string, which
; PgBouncer refuses or ignores. Set them for the role: ALTER ROLE polls_web SET statement_timeout = '5s'`),
	}},
	"recovery": {Lead: "Test idle connections, detect a silent network within seconds, and reconnect with a backoff.", Stacks: []Recipe{
		pgxDocs.recipe(`cfg.PingTimeout = time.Second // of the ping of a connection that was idle for 1 s
cfg.MaxConnIdleTime = 5 * time.Minute
cfg.MaxConnLifetime, cfg.MaxConnLifetimeJitter = time.Hour, 5*time.Minute
cfg.ConnConfig.ConnectTimeout = 3 * time.Second`),
		djangoDocs.recipe(`DATABASES["default"]["CONN_HEALTH_CHECKS"] = True  # with a pool and without
DATABASES["default"]["OPTIONS"] = {
    "pool": {"min_size": 1, "max_size": 4},
    "connect_timeout": 3, "keepalives_idle": 30, "keepalives_interval": 5,
    "keepalives_count": 3, "tcp_user_timeout": 5000,
}  # a "check" in the pool raises TypeError before Django 6.1`),
		sqlalchemyDocs.recipe(`engine = create_engine(
    url, pool_pre_ping=True, pool_recycle=1800,
    connect_args={"connect_timeout": 3, "keepalives_idle": 30, "tcp_user_timeout": 5000},
)`),
		railsDocs.recipe(`# config/database.yml
production:
  connect_timeout: 3
  keepalives_idle: 30        # libpq's
  tcp_user_timeout: 5000
  keepalive: 60              # Active Record's own check of idle connections, 8.1 and later
  max_age: 3600`),
		nodeDocs.recipe(`const pool = new Pool({
  keepAlive: true, keepAliveInitialDelayMillis: 30000,
  idleTimeoutMillis: 10000, maxLifetimeSeconds: 3600,
  connectionTimeoutMillis: 3000, query_timeout: 10000,
});
pool.on("error", (e) => log(e)); // else a lost idle client ends the process
// when client.query fails by query_timeout: client.release(true), or the next query waits behind it`),
		hikariDocs.recipe(`config.setKeepaliveTime(60_000);
config.setMaxLifetime(1_800_000);
config.setValidationTimeout(1_000);
config.addDataSourceProperty("tcpKeepAlive", "true");
config.addDataSourceProperty("socketTimeout", "30"); // seconds`),
		laravelDocs.recipe(`// Laravel reconnects once when a connection is lost outside of a transaction.
// In a worker that runs for long: php artisan queue:work --max-time=3600`),
		bouncerDocs.recipe(`[pgbouncer]
tcp_keepidle = 30
tcp_keepintvl = 5
tcp_keepcnt = 3
server_check_delay = 10
; the default is 15 s
server_login_retry = 3`),
	}},
	"reporting": {Lead: "Report outside of the request, once for each cause, and without a query.", Stacks: []Recipe{
		pgxDocs.recipe(`// after the lease is released; group by SQLSTATE, not by message
var pe *pgconn.PgError
if errors.As(err, &pe) && pe.Code == "53300" {
	outage.Count(err) // one mail and one event a window, with the number of the rest
	http.Error(w, "busy", http.StatusServiceUnavailable)
}`),
		djangoDocs.recipe(`# settings.py: one mail for an exception type in ten minutes; no include_html, which prints more objects that may query
LOGGING = {
    "version": 1, "disable_existing_loggers": False,
    "filters": {"once": {"()": "polls.logs.OnceAWindow"}},
    "handlers": {"mail_admins": {"class": "django.utils.log.AdminEmailHandler", "level": "ERROR", "filters": ["once"]}},
    "loggers": {"django": {"handlers": ["mail_admins"], "level": "INFO"}},
}
# polls/logs.py
class OnceAWindow(logging.Filter):
    next = {}  # by exception type

    def filter(self, record):
        kind, now = (record.exc_info or [record.msg])[0], time.monotonic()
        if now < self.next.get(kind, 0):
            return False
        self.next[kind] = now + 600
        return True
# sentry_sdk: before_send must not touch the ORM; use event["exception"] alone`),
		sqlalchemyDocs.recipe(`def before_send(event, hint):
    # no session, no lazy attribute: only what is loaded
    if "exc_info" in hint and isinstance(hint["exc_info"][1], OperationalError):
        event["fingerprint"] = ["database-unavailable"]
    return event`),
		railsDocs.recipe(`Sentry.init do |config|
  config.before_send = lambda do |event, hint|
    if hint[:exception].is_a?(ActiveRecord::ConnectionNotEstablished)
      event.fingerprint = ["database-unavailable"]
    end
    event # no Model.find in here
  end
end`),
		nodeDocs.recipe(`Sentry.init({
  beforeSend(event, hint) {
    if (hint.originalException?.code === "53300") event.fingerprint = ["slots-exhausted"];
    return event; // no pool.query in here
  },
});`),
		hikariDocs.recipe(`options.setBeforeSend((event, hint) -> {
  if (event.getThrowable() instanceof SQLTransientConnectionException)
    event.setFingerprints(List.of("pool-timeout"));
  return event; // no repository in here
});`),
		laravelDocs.recipe(`// bootstrap/app.php
$exceptions->throttle(fn (Throwable $e) => $e instanceof QueryException
    ? Limit::perMinute(1) : null);
// The limit is counted in the cache. CACHE_STORE is the database by default, which is what is out of
// connections: then every exception is reported, and each report connects once more. Use redis or file.`),
		bouncerDocs.recipe(`; It helps indirectly: attempts of a report wait for a server connection
; in PgBouncer, and do not log in to PostgreSQL.
[pgbouncer]
query_wait_timeout = 5`),
	}},
	"pooler": {Lead: "Use no named prepared statements, or a PgBouncer that supports them (1.21 and later).", Stacks: []Recipe{
		pgxDocs.recipe(`cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // or CacheDescribe
// with PgBouncer 1.21 and later and max_prepared_statements > 0 the default works`),
		djangoDocs.recipe(`DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True
# Django prepares no statement unless told to. To turn it on: PgBouncer 1.22, psycopg 3.2 and libpq 17 or later, and
# DATABASES["default"]["OPTIONS"] = {"prepare_threshold": 5}`),
		sqlalchemyDocs.recipe(`create_engine("postgresql+psycopg://…", connect_args={"prepare_threshold": None})
# asyncpg: prepared_statement_cache_size=0 in the URL, statement_cache_size=0 in connect_args; not with AUTOCOMMIT,
# in which the statement may be prepared on one server connection and run on another`),
		railsDocs.recipe(`# config/database.yml
production:
  prepared_statements: false
  advisory_locks: false      # migrations: connect directly`),
		nodeDocs.recipe(`// Unnamed by default. Do not give queries a name:
await pool.query({ text: "SELECT $1::int", values: [1] }); // no name: "…"`),
		hikariDocs.recipe(`config.addDataSourceProperty("prepareThreshold", "0"); // pgjdbc: never a named one`),
		laravelDocs.recipe(`// config/database.php, Laravel 13.17 and later: emulates prepares; migrations use the direct address
'pooled' => true,
'direct' => ['host' => 'db', 'port' => 5432],
// before: 'options' => [PDO::ATTR_EMULATE_PREPARES => true], but where('active', true) then fails,
// because Laravel binds 1: boolean = integer. Use whereRaw('active').`),
		bouncerDocs.recipe(`[pgbouncer]
; 1.21 and later; 200 is the default since 1.24
max_prepared_statements = 200`),
	}},
	"session": {Lead: "Set what a request needs for its transaction only, or reset the session when it goes back to the pool.", Stacks: []Recipe{
		pgxDocs.recipe(`err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
	_, err := tx.Exec(ctx, "SELECT set_config('shop.tenant', $1, true)", tenant) // true: for the transaction
	// …
})
// or, for everything: the pool destroys a connection for which this is false
cfg.AfterRelease = func(c *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := c.Exec(ctx, "DISCARD ALL", pgx.QueryExecModeSimpleProtocol)
	return err == nil
} // and cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe: DISCARD drops prepared statements`),
		djangoDocs.recipe(`with transaction.atomic(), connection.cursor() as cursor:
    cursor.execute("SELECT set_config('shop.tenant', %s, true)", [tenant])  # for the transaction
    # …`),
		sqlalchemyDocs.recipe(`with Session(engine) as session, session.begin():
    session.execute(text("SELECT set_config('shop.tenant', :t, true)"), {"t": tenant})
# The default, reset_on_return="rollback", does not undo a SET that was committed. To reset all of it:
engine = create_engine(url, pool_reset_on_return=None)
@event.listens_for(engine, "reset")
def reset(dbapi_connection, record, reset_state):
    dbapi_connection.rollback()
    if not reset_state.terminate_only:
        dbapi_connection.cursor().execute("RESET ALL")
        dbapi_connection.commit()`),
		railsDocs.recipe(`Order.transaction do
  conn = Order.lease_connection
  conn.exec_query("SELECT set_config('shop.tenant', $1, true)", "tenant", [tenant])
  # …
end
# a connection that a job has changed: conn.reset! (DISCARD ALL)`),
		nodeDocs.recipe(`await client.query("BEGIN");
await client.query("SELECT set_config('shop.tenant', $1, true)", [tenant]);
// … COMMIT
// a client whose session was changed: client.release(true) closes it`),
		hikariDocs.recipe(`// HikariCP resets autocommit, read-only, isolation, catalog, schema and timeout, but no SET.
connection.setAutoCommit(false);
try (PreparedStatement s = connection.prepareStatement("SELECT set_config('shop.tenant', ?, true)")) {
  s.setString(1, tenant);
  s.execute();
}`),
		laravelDocs.recipe(`DB::transaction(function () use ($tenant) {
    DB::select("SELECT set_config('shop.tenant', ?, true)", [$tenant]);
    // …
});`),
		bouncerDocs.recipe(`[pgbouncer]
; a SET reaches the next client, except of a parameter that the server reports, such as TimeZone: use SET LOCAL
pool_mode = transaction
; in session mode, server_reset_query = DISCARD ALL is the default`),
	}},
	"listen": {Lead: "Listen on one connection for each process, outside of the pool, and pass the notifications on in memory.", Stacks: []Recipe{
		pgxDocs.recipe(`conn, err := pgx.Connect(ctx, dsn) // one for the process, not from the pool
_, err = conn.Exec(ctx, "LISTEN polls")
for {
	n, err := conn.WaitForNotification(ctx)
	if err != nil {
		return err // connect and listen again, with a backoff
	}
	hub.Broadcast(n.Payload) // to every subscriber
}`),
		djangoDocs.recipe(`# one management command or thread for each process
with psycopg.connect(dsn, autocommit=True) as conn:
    conn.execute("LISTEN polls")
    for notify in conn.notifies():
        hub.broadcast(notify.payload)`),
		sqlalchemyDocs.recipe(`# a connection of the driver, not of the engine's pool
conn = await asyncpg.connect(dsn)
await conn.add_listener("polls", lambda c, pid, channel, payload: hub.broadcast(payload))`),
		railsDocs.recipe(`# config/cable.yml: Action Cable listens on one connection for each process
production:
  adapter: postgresql`),
		nodeDocs.recipe(`const listener = new Client(); // not pool.connect()
await listener.connect();
listener.on("notification", (n) => hub.emit("poll", n.payload));
listener.on("error", reconnect);
await listener.query("LISTEN polls");`),
		hikariDocs.recipe(`Connection c = DriverManager.getConnection(url, props); // not dataSource.getConnection()
c.createStatement().execute("LISTEN polls");
PGConnection pg = c.unwrap(PGConnection.class);
while (running) {
  PGNotification[] got = pg.getNotifications(10_000); // waits up to 10 s
  if (got != null) for (PGNotification n : got) hub.broadcast(n.getParameter());
}`),
		laravelDocs.recipe(`// one artisan command, run by the supervisor
$pdo = DB::connection('listener')->getPdo();
$pdo->exec('LISTEN polls');
while (true) {
    // PHP 8.4 and later; before: pgsqlGetNotify
    if ($n = $pdo->getNotify(PDO::FETCH_ASSOC, 10000)) { broadcast($n['payload']); }
}`),
		bouncerDocs.recipe(`; LISTEN works in session mode only, and there each listener keeps a server connection.
; Let the one listener of a process connect to PostgreSQL directly.`),
	}},
	"neighbour": {Lead: "Give each program its own role, and the role a limit. The limit is set on the server; the program only names its role.", Stacks: []Recipe{
		pgxDocs.recipe(`-- as an administrator; new connections only
ALTER ROLE reporting CONNECTION LIMIT 10;
// and in each program:
pool, err := pgxpool.New(ctx, "postgres://polls_web@db/polls?application_name=polls-web")`),
		djangoDocs.recipe(`DATABASES["default"]["USER"] = "polls_web"  # its own role, with a limit:
# ALTER ROLE polls_web CONNECTION LIMIT 20;
DATABASES["default"]["OPTIONS"] = {"application_name": "polls-web"}`),
		sqlalchemyDocs.recipe(`engine = create_engine("postgresql+psycopg://polls_web@db/polls?application_name=polls-web")
# ALTER ROLE polls_web CONNECTION LIMIT 20;`),
		railsDocs.recipe(`# config/database.yml
production:
  username: polls_web        # ALTER ROLE polls_web CONNECTION LIMIT 20;
  variables:
    application_name: polls-web`),
		nodeDocs.recipe(`const pool = new Pool({ user: "polls_web", application_name: "polls-web" });
// ALTER ROLE polls_web CONNECTION LIMIT 20;`),
		hikariDocs.recipe(`config.setUsername("polls_web"); // ALTER ROLE polls_web CONNECTION LIMIT 20;
config.addDataSourceProperty("ApplicationName", "polls-web");`),
		laravelDocs.recipe(`// config/database.php
'username' => 'polls_web', // ALTER ROLE polls_web CONNECTION LIMIT 20;
'application_name' => 'polls-web',`),
		bouncerDocs.recipe(`[databases]
polls = host=db pool_size=15
reports = host=db dbname=polls user=reporting pool_size=3
[pgbouncer]
max_user_connections = 15`),
	}},
	"locks": {Lead: "Let a migration stop waiting for its lock soon, and retry; build indexes concurrently.", Stacks: []Recipe{
		pgxDocs.recipe(`-- in the migration, which the tool retries
SET LOCAL lock_timeout = '2s';
ALTER TABLE polls_question ADD COLUMN note text;
-- a file of its own, with -- +goose NO TRANSACTION:
CREATE INDEX CONCURRENTLY ON polls_question (pub_date);`),
		djangoDocs.recipe(`# settings of the migrating job
DATABASES["default"]["OPTIONS"] = {"options": "-c lock_timeout=2s"}
# for an index: django.contrib.postgres.operations.AddIndexConcurrently, with atomic = False`),
		sqlalchemyDocs.recipe(`# Alembic
op.execute("SET LOCAL lock_timeout = '2s'")
op.add_column("polls_question", sa.Column("note", sa.Text))
with op.get_context().autocommit_block():
    op.create_index("by_date", "polls_question", ["pub_date"], postgresql_concurrently=True)`),
		railsDocs.recipe(`# config/database.yml of the migrating job
production:
  variables:
    lock_timeout: 2s
# for an index: disable_ddl_transaction! and add_index …, algorithm: :concurrently`),
		nodeDocs.recipe(`// in the migration
await client.query("SET LOCAL lock_timeout = '2s'");
await client.query("ALTER TABLE polls_question ADD COLUMN note text");
// CREATE INDEX CONCURRENTLY: outside of a transaction`),
		hikariDocs.recipe(`-- Flyway, V12__note.sql
SET LOCAL lock_timeout = '2s';
ALTER TABLE polls_question ADD COLUMN note text;
-- V13__by_date.sql, with flyway.postgresql.transactional.lock=false (Flyway 9.1 and later):
-- otherwise the index waits for ever for the transaction in which Flyway holds its lock
CREATE INDEX CONCURRENTLY by_date ON polls_question (pub_date);`),
		laravelDocs.recipe(`DB::statement("SET LOCAL lock_timeout = '2s'");
Schema::table('polls_question', fn (Blueprint $t) => $t->text('note')->nullable());
// CREATE INDEX CONCURRENTLY: public $withinTransaction = false;`),
		bouncerDocs.recipe(`; Run migrations past PgBouncer: they use session settings and advisory locks.
; query_wait_timeout = 5 keeps clients from piling up behind the lock.`),
	}},
}
