package db_test

import "errors"

// makePipe fails: Windows has no pipes in directories. No test of this package runs there, for want of a private server.
func makePipe(string) error { return errors.ErrUnsupported }
