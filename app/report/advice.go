package report

import "ddtb/db"

// advice is what a person who is woken by a cause needs: what it means, and what to do, in that order.
type advice struct {
	what string
	why  string
	do   []string
}

const lookAtHolders = "See who holds the connections, since when and from which line of code: %s/admin/connections/"

// advices has an entry for each cause. "%s" is where the application is found.
var advices = map[string]advice{
	string(db.PoolTimeout): {
		"A request waited for one of this application's own connections for the whole timeout, and got none. The database server may be quite idle.",
		"All leases of the pool were out: too many requests at once, queries that take too long, or leases that never come back (a leak).",
		[]string{
			lookAtHolders,
			"A holder that is much older than the rest is a leak or a slow query: its line is the place to mend. pool.reclaim_after takes leaked leases back.",
			"If all holders are young, there are more requests than connections: raise pool.max_size as far as the budget allows (ddtb db-connections status), or hold leases for each query only (pool.hold = \"query\"). A saved change of the file takes effect without a restart.",
		},
	},
	string(db.QueueFull): {
		"A request was turned away at once: pool.max_waiting others were waiting for a connection already, or the queue moves so slowly that a third of pool.timeout would have passed. It kept the queue from growing without end.",
		"All leases of the pool are out for longer than usual, while requests keep coming.",
		[]string{
			lookAtHolders,
			"Old holders are leaks or slow queries. Young ones mean more load than this pool can carry: raise pool.max_size as far as the budget allows.",
			"A larger pool.max_waiting only makes the same requests fail later.",
		},
	},
	string(db.SlotsExhausted): {
		"PostgreSQL refused a connection (SQLSTATE 53300): every slot that this role may use is taken.",
		"Connections of this application, of its other replicas, or of other applications on the same server add up to more than max_connections less the reserved ones.",
		[]string{
			"See whose they are: ddtb db-connections status",
			"Close those that are idle: ddtb db-connections --action=close-idle.",
			"Bound what this application may take: strategy = \"pool\", with pool.max_size × replicas within the budget that status shows. Raising max_connections instead needs a restart of PostgreSQL.",
			"Don't restart the application for it: it tries again by itself, and recovers when slots are free.",
		},
	},
	roleLimit: {
		"PostgreSQL refused a connection (SQLSTATE 53300): the role has as many as its CONNECTION LIMIT allows. Other roles may still connect.",
		"ALTER ROLE … CONNECTION LIMIT is below what this application and its replicas take together.",
		[]string{
			"See the limit: SELECT rolname, rolconnlimit FROM pg_roles WHERE rolconnlimit >= 0, and who uses it: ddtb db-connections status.",
			"Raise it (ALTER ROLE … CONNECTION LIMIT n), or lower pool.max_size so that max_size × replicas and one for the monitor fit.",
		},
	},
	databaseLimit: {
		"PostgreSQL refused a connection (SQLSTATE 53300): the database has as many as its CONNECTION LIMIT allows. Other databases may still be reached.",
		"ALTER DATABASE … CONNECTION LIMIT is below what all applications of this database take together.",
		[]string{
			"See the limit: SELECT datname, datconnlimit FROM pg_database WHERE datconnlimit >= 0, and who uses it: ddtb db-connections status.",
			"Raise it (ALTER DATABASE … CONNECTION LIMIT n), or lower pool.max_size.",
		},
	},
	string(db.PoolerFull): {
		"PgBouncer took no more clients, or had no connection to PostgreSQL for this one in time. The server itself may be quite idle.",
		"max_client_conn is reached, or all of a pool's server connections (default_pool_size) were busy for query_wait_timeout.",
		[]string{
			"Ask PgBouncer's console: SHOW POOLS (cl_waiting, maxwait) and SHOW CLIENTS.",
			"Raise max_client_conn above all replicas' pool.max_size together, or default_pool_size within the server's budget.",
		},
	},
	string(db.NoSuitableServer): {
		"Servers answered, but none of them is as target_session_attrs asks.",
		"A failover is under way, all hosts are standbys, or default_transaction_read_only is set.",
		[]string{
			"Ask each host: SELECT pg_is_in_recovery(), and SHOW transaction_read_only.",
			"Nothing needs to be restarted here: the application asks all hosts again at each attempt to connect.",
		},
	},
	string(db.ServerTimeout): {
		"PostgreSQL or a pooler ended a session: a timeout that is set there passed (SQLSTATE 25P03, 25P04, or PgBouncer's).",
		"transaction_timeout or idle_in_transaction_session_timeout is shorter than the longest transaction, for the server, the database or the role.",
		[]string{
			"See what is set: SHOW transaction_timeout, and SELECT * FROM pg_db_role_setting.",
			"The route says which transaction is long: make it shorter, or raise the timeout for this role.",
		},
	},
	string(db.SettingRefused): {
		"The server, or a pooler before it, refused a setting that the login sends. This does not pass by itself.",
		"PGTZ, PGOPTIONS or options has a value that the server does not know or this role may not set; or the host is a PgBouncer, which takes no statement_timeout.",
		[]string{
			"The message names the setting: mend it in the environment or in the configuration file.",
			"If the host is a PgBouncer, set pooler = \"pgbouncer\", and the timeout by ALTER ROLE … SET statement_timeout.",
		},
	},
	string(db.TLSRefused): {
		"The server and this application can't agree on TLS. This does not pass by itself.",
		"sslmode or channel_binding asks for what the server does not offer: ssl = off, other versions of TLS, or a pooler without it.",
		[]string{
			"Ask the server: SHOW ssl. Turn it on there; only within one machine, sslmode = \"prefer\" is enough.",
		},
	},
	string(db.CertificateRejected): {
		"A certificate was not trusted: the server's by this application, or ours by the server. This does not pass by itself.",
		"It has expired, is for another host's name, or sslrootcert does not hold the authority that signed it.",
		[]string{
			"The message says which. See it: openssl s_client -starttls postgres -connect HOST:PORT -showcerts",
			"Set sslrootcert to the authority's file, host to the name in the certificate, or renew it.",
		},
	},
	preparedStatement: {
		"PostgreSQL knows a prepared statement that it should not (SQLSTATE 42P05), or does not know one that it should (26000).",
		"The host is a PgBouncer in transaction mode, and the configuration does not say so: each statement may run on another server connection.",
		[]string{"Set pooler = \"pgbouncer\" in the configuration file: statements are then not prepared by name. It takes effect without a restart."},
	},
	string(db.ServerUnavailable): {
		"The database server does not answer, is starting or shutting down, or dropped a connection.",
		"It was restarted, it crashed, or the network between it and this machine is interrupted.",
		[]string{
			"Is it up? pg_isready -h HOST, and the server's own log.",
			"Nothing needs to be restarted here: the application tries again with growing pauses, and recovers when the server does.",
		},
	},
	string(db.LoginRejected): {
		"The database server does not let this role in, or not to this database. This does not pass by itself.",
		"The password, the role, the database's name or pg_hba.conf was changed, or the role reached its own CONNECTION LIMIT.",
		[]string{
			"Compare ddtb config show with what the server expects: its log tells the reason which it hides from the client.",
			"Mend user, password or name in the configuration file. A new password takes effect with the next connection.",
		},
	},
	string(db.CircuitOpen): {
		"The last attempts to connect failed, so this one was not made: a server that comes back must not be stampeded.",
		"See the mail about the cause that came before this one.",
		[]string{"Nothing: attempts go on by themselves, and requests are served again as soon as one succeeds."},
	},
	statementTimeout: {
		"PostgreSQL stopped a statement (SQLSTATE 57014): it ran for longer than statement_timeout, or somebody cancelled it.",
		"The query is slow, or waits for a lock that somebody keeps.",
		[]string{
			"See what is slow, and who waits for whom: ddtb db-connections --action=doctor.",
			"A slow query needs an index or a smaller question; the traceback or the route says which page asks it.",
		},
	},
	lockTimeout: {
		"PostgreSQL gave up on a lock (SQLSTATE 55P03): somebody keeps it for longer than lock_timeout.",
		"A transaction is left open, or a change of a table waits behind a long reader, and everybody behind it.",
		[]string{"See who keeps it: ddtb db-connections --action=doctor."},
	},
	readOnly: {
		"PostgreSQL takes no changes (SQLSTATE 25006). Pages that only read are served as ever.",
		"The application is connected to a standby, after a failover perhaps, or default_transaction_read_only is set.",
		[]string{
			"Ask the server: SELECT pg_is_in_recovery(), and SHOW default_transaction_read_only.",
			"Point host at the primary. A saved change of the file takes effect without a restart.",
		},
	},
	diskFull: {
		"PostgreSQL has no room on its disk (SQLSTATE 53100), so nothing is stored. This does not pass by itself.",
		"Data, WAL that a replication slot or an archiver keeps, or temporary files of a large sort filled it.",
		[]string{
			"df on the server, and SELECT * FROM pg_replication_slots for a slot that keeps WAL.",
			"Make room, but delete nothing in the data folder by hand: pg_wal is not a folder of logs.",
		},
	},
	outOfMemory: {
		"PostgreSQL had too little memory for a statement (SQLSTATE 53200).",
		"work_mem × the backends at work is more than there is, or too many backends share the machine.",
		[]string{"Count the backends: ddtb db-connections status. Fewer connections, or a smaller work_mem, are the remedy."},
	},
	deadlineExceeded: {
		"A request had no more time before what it waited for was done.",
		"The database server hangs, or the network to it does: it neither answered nor refused in time. Or the request waited behind others that did.",
		[]string{
			"Does it answer? ddtb db-connections status, and the server's own log.",
			"The route says what was asked for. If it is one alone, look for what is slow in it.",
		},
	},
	InternalError: {
		"A request failed in a way that nobody expected. The person at the other end saw \"Something went wrong here\".",
		"A bug, or something outside of it that the code does not handle. The traceback below shows the line.",
		[]string{
			"Find the request in the log by its id, and mend the line.",
			"It is no shortage of connections: restarting or resizing anything won't help.",
		},
	},
	others.Cause: {
		"So many kinds of failure happened at once that they are no longer told apart: these are the rest.",
		"Mostly one cause breaks everything at once.",
		[]string{"Begin with the other mails, and with the log, which has every one of them."},
	},
}

func adviceFor(cause string) advice {
	if a, ok := advices[cause]; ok {
		return a
	}
	a := advices[InternalError]
	a.what = "A request failed: " + cause + "."
	return a
}
