package db

import "context"

// ExecAsItEnds executes sql in the request of ctx, which ends between the query's beginning and its request for a lease.
func (d *DB) ExecAsItEnds(ctx context.Context, end func(), sql string) error {
	r := d.requestOf(ctx)
	end()
	l, err := d.lease(ctx, r, caller(allFrames))
	if err == nil {
		_, _, err = l.exec(ctx, sql, nil)
	}
	return err
}
