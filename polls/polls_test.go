package polls_test

import (
	"testing"
	"time"

	"ddtb/polls"
)

// now is when the tests began. What they store is dated by it.
var now = time.Now().UTC().Truncate(time.Second)

func TestAQuestionWasPublishedRecentlyWithinTheDayThatEndsNow(t *testing.T) {
	const day = 24 * time.Hour
	for age, want := range map[time.Duration]bool{
		-30 * day:              false,
		-time.Microsecond:      false,
		0:                      true,
		time.Microsecond:       true,
		day - time.Microsecond: true,
		day:                    true,
		day + time.Microsecond: false,
		30 * day:               false,
	} {
		q := polls.Question{PubDate: now.Add(-age).In(time.FixedZone("elsewhere", 5*3600))}
		if got := q.WasPublishedRecently(now); got != want {
			t.Errorf("%v ago: got %v", age, got)
		}
	}
}

func TestAShareIsRoundedButHidesNoVoteAndNoMinority(t *testing.T) {
	for _, tt := range []struct {
		votes, others int64
		want          string
	}{
		{0, 0, "0 %"},
		{0, 5, "0 %"},
		{5, 0, "100 %"},
		{1, 2, "33 %"},
		{2, 1, "67 %"},
		{1, 99, "1 %"},
		{1, 100_000, "under 1 %"},
		{100_000, 1, "over 99 %"},
		{-3, 5, "0 %"}, // another application may share the table
		{5, -3, "100 %"},
	} {
		c := polls.Choice{ID: 1, Votes: tt.votes}
		q := polls.Question{Choices: []polls.Choice{c, {ID: 2, Votes: tt.others}}}
		if got := q.Share(c); got != tt.want {
			t.Errorf("%d of %d: got %q, want %q", tt.votes, q.Votes(), got, tt.want)
		}
		if p := q.Percent(c); p < 0 || p > 100 {
			t.Errorf("%d of %d: %v percent", tt.votes, q.Votes(), p)
		}
	}
}
