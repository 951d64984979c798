package db

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// QueryFailure is an error of the server that is neither a bug nor the lack of a connection, as people read it.
type QueryFailure struct {
	SQLStates []string
	Cause     string // in metrics and reports; "": it is not counted by a cause
	Status    int    // of HTTP
	Title     string // "": that of the status
	Sentence  string // for a visitor
	Passes    bool   // the same request may succeed later without a change
}

// refusedByDatabase is the cause of a refusal by what administrators put into the database: triggers, texts, limits.
const refusedByDatabase = "refused by the database"

// QueryFailures lists them. Each that has a cause has an alert.
var QueryFailures = []QueryFailure{
	{
		SQLStates: []string{pgerrcode.QueryCanceled}, Cause: "statement timeout", Status: 503, Passes: true, Title: "The database took too long",
		Sentence: "The database cancelled this request: it took longer than allowed, or an administrator cancelled it. Any change was rolled back.",
	}, {
		SQLStates: []string{pgerrcode.LockNotAvailable}, Cause: "lock timeout", Status: 503, Passes: true, Title: "The database took too long",
		Sentence: "Another transaction has locked what this request needs, for longer than it may wait. Any change was rolled back.",
	}, {
		SQLStates: []string{pgerrcode.ReadOnlySQLTransaction}, Cause: "read-only database", Status: 503, Passes: true, Title: "The database is read-only",
		Sentence: "The database accepts no changes at the moment, so nothing was stored. Read-only pages still work.",
	}, {
		SQLStates: []string{pgerrcode.DiskFull}, Cause: "disk full", Status: 503, Title: "The database's disk is full",
		Sentence: "The database's disk is full, so nothing can be stored until an administrator frees space. Read-only pages still work.",
	}, {
		SQLStates: []string{pgerrcode.OutOfMemory}, Cause: "out of memory", Status: 503, Passes: true, Title: "The database is short of memory",
		Sentence: "The database server has too little memory for this at the moment. Any change was rolled back.",
	}, {
		SQLStates: []string{pgerrcode.InsufficientPrivilege}, Cause: "permission denied", Status: 503, Title: "The database does not allow this",
		Sentence: "This application's role may not do this in the database, so nothing was changed. An administrator has to grant it.",
	}, {
		SQLStates: []string{pgerrcode.UndefinedTable, pgerrcode.UndefinedColumn, pgerrcode.InvalidSchemaName, pgerrcode.WrongObjectType},
		Cause:     "missing table", Status: 503,
		Title: "The database is incomplete", Sentence: "A table or a column that this needs is missing from the database, so nothing was changed. " +
			"Its administrator has to run `ddtb migrate`, which makes it, or says which one is missing and what to do.",
	}, {
		// Our statements fit the tables that the migrations make. FeatureNotSupported is of a rule: see QueryFailureOf.
		SQLStates: []string{pgerrcode.DatatypeMismatch, pgerrcode.UndefinedFunction, pgerrcode.FeatureNotSupported}, Cause: "missing table", Status: 503,
		Title: "The database was changed", Sentence: "A table that this needs is not as `ddtb migrate` made it: a column has another type, or a rule replaces what is written. " +
			"Nothing was changed. An administrator finds the column or the table in the log.",
	}, {
		SQLStates: []string{pgerrcode.DuplicatePreparedStatement, pgerrcode.InvalidSQLStatementName}, Status: 503,
		Title: "A connection pooler is in the way", Sentence: behindPooler,
	}, {
		// It has already been retried where that is possible.
		SQLStates: []string{pgerrcode.DeadlockDetected, pgerrcode.SerializationFailure}, Status: 409, Passes: true,
		Sentence: "Other users changed the same data at the same moment, so this change was rolled back: nothing of it is stored.",
	}, {
		SQLStates: []string{pgerrcode.NumericValueOutOfRange}, Status: 409,
		Sentence: "A number would become larger than the database can store, so nothing was changed.",
	}, {
		SQLStates: []string{pgerrcode.StringDataRightTruncationDataException}, Status: 400,
		Sentence: "A text is longer than the database can store. Shorten it and send it again.",
	}, {
		SQLStates: []string{pgerrcode.UntranslatableCharacter}, Status: 400,
		Sentence: "A text has a character that the database can't store. Remove it and send it again.",
	}, {
		// A text that was sent is valid UTF-8 here, but for NUL: see QueryFailureOf.
		SQLStates: []string{pgerrcode.CharacterNotInRepertoire}, Cause: refusedByDatabase, Status: 503, Title: "A stored text can't be read",
		Sentence: "A text in the database is not in the database's encoding, so it can't be shown. An administrator has to correct it there.",
	}, {
		SQLStates: []string{pgerrcode.RaiseException}, Cause: refusedByDatabase, Status: 503, Title: "The database refused this",
		Sentence: "A trigger or a function in the database refused this, so nothing was changed. An administrator finds its reason in the log.",
	}, {
		SQLStates: []string{pgerrcode.ConfigurationLimitExceeded}, Cause: refusedByDatabase, Status: 503, Title: "A limit of the database was reached",
		Sentence: "This needs more than the database's configuration allows, so nothing was changed. An administrator finds the limit in the log.",
	}, {
		SQLStates: []string{pgerrcode.DatetimeFieldOverflow}, Status: 400,
		Sentence: "A date or time is outside of what the database can store. Change it and send it again.",
	},
}

// QueryFailureOf returns the failure that err, the error of a query, is; ok is false for any other error.
func QueryFailureOf(err error) (f QueryFailure, ok bool) {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return QueryFailure{}, false
	}
	code := pe.Code
	switch {
	case code == pgerrcode.CharacterNotInRepertoire && strings.HasSuffix(pe.Message, ": 0x00"):
		code = pgerrcode.UntranslatableCharacter // NUL, which a client sent: the database stores none
	case code == pgerrcode.FeatureNotSupported && pe.Routine != appliesRules:
		return QueryFailure{}, false
	}
	i := slices.IndexFunc(QueryFailures, func(f QueryFailure) bool { return slices.Contains(f.SQLStates, code) })
	if i < 0 {
		return QueryFailure{}, false
	}
	return QueryFailures[i], true
}
