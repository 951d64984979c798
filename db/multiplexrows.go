package db

import (
	"bytes"
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
)

// muxCall is one statement on its way to the server and back to its caller. The multiplexer's lock guards the fields of
// the first group. Those of the second don't change after the call is submitted. Those of the third belong to the caller
// until then, and later to the reader of the connection, until the call is answered. A call that has joined another
// gets the other's rows with the lock held.
type muxCall struct {
	place   *list.Element // in the list of waiting calls
	queued  time.Time     // when it began to wait
	conn    *muxConn      // on which it was sent; nil: it waits, or has joined another
	gone    bool          // answered, or the caller left
	err     error
	first   *muxCall // the call that it has joined; nil: none
	next    *muxCall // in the list of the calls that share an answer, which begins at their first
	callers int      // of a first: those that wait for the answer, its own included

	*muxStatement
	alone   bool   // it shares no answer
	message []byte // empty: it only describes
	hash    uint64 // of message

	fresh    bool     // the statement was described just now for this caller
	prepared uint64   // the number of the Parse message that prepared the statement on this connection
	parse    bool     // this call sends the Parse message
	parsed   bool     // the server accepted it
	verify   bool     // the server describes the statement, perhaps again
	rows     *muxRows // nil: the call only describes
	params   []uint32 // the server's description of the statement
	fields   []pgconn.FieldDescription
	rowless  bool
	overflow bool
	failure  *pgconn.PgError

	done chan struct{} // has room for the one answer
}

var muxCalls = sync.Pool{New: func() any { return &muxCall{done: make(chan struct{}, 1)} }}

func newMuxCall(s *muxStatement, alone bool) *muxCall {
	call := muxCalls.Get().(*muxCall)
	call.muxStatement, call.alone, call.callers = s, alone, 1
	return call
}

// release makes the call's memory available to the next query. No connection, offer or other call must refer to it.
func (call *muxCall) release() {
	*call = muxCall{done: call.done, message: call.message[:0]}
	if cap(call.message) <= 4096 {
		muxCalls.Put(call)
	}
}

// bind encodes the messages that run the statement with these arguments.
func (call *muxCall) bind(args []any) (err error) {
	if len(args) != len(call.ParamOIDs) {
		return fmt.Errorf("expected %d arguments, got %d", len(call.ParamOIDs), len(args))
	}
	b := &call.rows.codec.builder
	if err := b.Build(call.rows.codec.types, &call.StatementDescription, args); err != nil {
		return err
	}
	bind := pgproto3.Bind{
		PreparedStatement: call.Name, ParameterFormatCodes: b.ParamFormats,
		Parameters: b.ParamValues, ResultFormatCodes: b.ResultFormats,
	}
	if call.message, err = bind.Encode(call.message); err != nil {
		return err
	}
	call.message, err = (&pgproto3.Execute{}).Encode(call.message)
	call.hash = maphash.Bytes(muxSeed, call.message)
	return err
}

// matches reports whether the server's latest description of the statement is the one that the call was encoded for.
func (call *muxCall) matches() bool {
	same := func(a, b pgconn.FieldDescription) bool { return a.DataTypeOID == b.DataTypeOID && a.Name == b.Name }
	return !call.rowless && slices.Equal(call.params, call.ParamOIDs) && slices.EqualFunc(call.fields, call.Fields, same)
}

// describedFields copies a row description, with the formats that the codec uses.
func describedFields(d *pgproto3.RowDescription) []pgconn.FieldDescription {
	codec := muxCodecs.Get().(*muxCodec)
	defer codec.release()
	fields := make([]pgconn.FieldDescription, len(d.Fields))
	for i, f := range d.Fields {
		fields[i] = pgconn.FieldDescription{
			Name: string(f.Name), TableOID: f.TableOID, TableAttributeNumber: f.TableAttributeNumber,
			DataTypeOID: f.DataTypeOID, DataTypeSize: f.DataTypeSize, TypeModifier: f.TypeModifier,
			Format: codec.types.FormatCodeForOID(f.DataTypeOID),
		}
	}
	return fields
}

// muxCodec encodes a query's arguments and decodes its rows. A type map serves one query at a time.
type muxCodec struct {
	types   *pgtype.Map
	builder pgx.ExtendedQueryBuilder
	values  [][]byte
	plans   []muxPlan // of the columns; the next query often has the same
}

// muxPlan decodes a column into a target of one type.
type muxPlan struct {
	oid    uint32
	format int16
	target reflect.Type
	pgtype.ScanPlan
}

var muxCodecs = sync.Pool{New: func() any { return &muxCodec{types: pgtype.NewMap()} }}

func (c *muxCodec) release() {
	clear(c.values)
	c.values = c.values[:0]
	muxCodecs.Put(c)
}

// muxRows is a complete result in memory.
type muxRows struct {
	fields []pgconn.FieldDescription
	tag    pgconn.CommandTag
	buf    []byte // the values of the unread rows, each after its length in four bytes; -1 is NULL
	left   int    // unread rows
	on     bool   // positioned on a row
	codec  *muxCodec
	err    error
}

// add appends a row.
func (r *muxRows) add(values [][]byte) {
	r.left++
	for _, v := range values {
		if v == nil {
			r.buf = append(r.buf, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		r.buf = binary.BigEndian.AppendUint32(r.buf, uint32(len(v)))
		r.buf = append(r.buf, v...)
	}
}

// Next parses the next row.
func (r *muxRows) Next() bool {
	if r.codec == nil || r.left == 0 {
		r.Close()
		return false
	}
	r.left, r.on = r.left-1, true
	values := r.codec.values[:0]
	for range r.fields {
		n := int(int32(binary.BigEndian.Uint32(r.buf)))
		r.buf = r.buf[4:]
		if n < 0 {
			values = append(values, nil)
			continue
		}
		values = append(values, r.buf[:n:n])
		r.buf = r.buf[n:]
	}
	r.codec.values = values
	return true
}

// Close releases the rows. The memory of the values is never reused.
func (r *muxRows) Close() {
	if r.codec != nil {
		r.codec.release()
		r.codec, r.buf, r.left = nil, nil, 0
	}
}

// Scan decodes the current row as pgx does.
func (r *muxRows) Scan(dest ...any) error {
	if err := r.scan(dest); err != nil {
		return r.fail(err)
	}
	return nil
}

func (r *muxRows) scan(dest []any) error {
	if err := r.current(); err != nil {
		return err
	}
	if len(dest) == 1 {
		if row, ok := dest[0].(pgx.RowScanner); ok {
			return row.ScanRow(r)
		}
	}
	if len(dest) != len(r.fields) {
		return fmt.Errorf("number of field descriptions must equal number of destinations, got %d and %d", len(r.fields), len(dest))
	}
	for i, d := range dest {
		if d == nil {
			continue
		}
		if err := r.plan(i, d).Scan(r.codec.values[i], d); err != nil {
			return pgx.ScanArgError{ColumnIndex: i, FieldName: r.fields[i].Name, Err: err}
		}
	}
	return nil
}

// plan returns how column i is decoded into such a target.
func (r *muxRows) plan(i int, target any) pgtype.ScanPlan {
	c, f := r.codec, &r.fields[i]
	for len(c.plans) <= i {
		c.plans = append(c.plans, muxPlan{})
	}
	p := &c.plans[i]
	if t := reflect.TypeOf(target); p.target != t || p.oid != f.DataTypeOID || p.format != f.Format {
		*p = muxPlan{f.DataTypeOID, f.Format, t, c.types.PlanScan(f.DataTypeOID, f.Format, target)}
	}
	return p.ScanPlan
}

// Values decodes the current row into the types that pgx chooses.
func (r *muxRows) Values() ([]any, error) {
	if err := r.current(); err != nil {
		return nil, err
	}
	values := make([]any, len(r.fields))
	for i, raw := range r.codec.values {
		v, err := r.value(&r.fields[i], raw)
		if err != nil {
			return nil, r.fail(err)
		}
		values[i] = v
	}
	return values, nil
}

func (r *muxRows) value(f *pgconn.FieldDescription, raw []byte) (any, error) {
	t, known := r.codec.types.TypeForOID(f.DataTypeOID)
	switch {
	case raw == nil:
		return nil, nil //nolint:nilnil // NULL
	case known:
		return t.Codec.DecodeValue(r.codec.types, f.DataTypeOID, f.Format, raw)
	case f.Format == pgx.TextFormatCode:
		return string(raw), nil
	}
	return bytes.Clone(raw), nil
}

func (r *muxRows) current() error {
	switch {
	case r.codec == nil:
		return errors.New("rows is closed")
	case !r.on:
		return errors.New("Next was not called")
	}
	return nil
}

func (r *muxRows) fail(err error) error {
	if r.err == nil {
		r.err = err
	}
	r.Close()
	return err
}

// RawValues returns the bytes of the current row. They are not to be changed: other callers may have the same memory.
func (r *muxRows) RawValues() [][]byte {
	if r.codec == nil {
		return nil
	}
	return r.codec.values
}

// TypeMap returns nil once the rows are closed, because another query may then use the map.
func (r *muxRows) TypeMap() *pgtype.Map {
	if r.codec == nil {
		return nil
	}
	return r.codec.types
}

func (r *muxRows) Err() error                                   { return r.err }
func (r *muxRows) CommandTag() pgconn.CommandTag                { return r.tag }
func (r *muxRows) FieldDescriptions() []pgconn.FieldDescription { return r.fields }

// Conn returns nil, because the connection is shared.
func (r *muxRows) Conn() *pgx.Conn { return nil }
