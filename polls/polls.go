// Package polls is the application that ddtb serves: questions, choices and votes. Behaviour, tables and columns are
// those of Django's tutorial, so that both can share a database.
//
// What callers can rely on: a question is invisible and accepts no votes until it is published. N concurrent votes
// count as exactly N. A form that is resubmitted, because its first submission may have failed, counts once within a
// day. Each page costs one query, because under some strategies each query needs a lease.
//
// The package does not depend on how connections are acquired, on connection failures, on users, or on the admin.
package polls

import (
	"fmt"
	"time"
)

// Question is a poll's question. It is public from PubDate on.
type Question struct {
	ID      int64
	Text    string
	PubDate time.Time
	Choices []Choice // in order of creation; nil in a list
}

// Choice is an answer to its question.
type Choice struct {
	ID    int64
	Text  string
	Votes int64
}

// recently is how long a question counts as new.
const recently = 24 * time.Hour

// WasPublishedRecently reports whether the question was published within the last 24 hours, both ends included. A
// future question was not.
func (q Question) WasPublishedRecently(now time.Time) bool {
	return !q.PubDate.Before(now.Add(-recently)) && !q.PubDate.After(now)
}

// Votes returns the sum over all choices. A negative sum, which the column allows, counts as zero.
func (q Question) Votes() int64 {
	var sum int64
	for _, c := range q.Choices {
		sum += max(c.Votes, 0)
	}
	return sum
}

// Most returns the number of votes of the leading choices; 0 without votes.
func (q Question) Most() int64 {
	var most int64
	for _, c := range q.Choices {
		most = max(most, c.Votes)
	}
	return most
}

// Percent returns the choice's share of all votes, from 0 to 100.
func (q Question) Percent(c Choice) float64 {
	if c.Votes <= 0 {
		return 0 // also without votes
	}
	return 100 * float64(c.Votes) / float64(q.Votes())
}

// Share formats Percent, rounded, but never so that a vote becomes 0 % or a minority disappears.
func (q Question) Share(c Choice) string {
	switch p := q.Percent(c); {
	case p > 0 && p < 1:
		return "under 1 %"
	case p > 99 && p < 100:
		return "over 99 %"
	default:
		return fmt.Sprintf("%.0f %%", p)
	}
}

// Path returns the address of the question's page.
func (q Question) Path() string { return fmt.Sprintf("/polls/%d/", q.ID) }
