package migrations_test

import (
	"testing"

	"ddtb/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Run(m) }
