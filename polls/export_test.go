package polls

// What the tests of package polls_test look at from within.
var ParseChoice = parseChoice

const (
	LatestSQL = latestSQL
	MaxForm   = maxForm
)
