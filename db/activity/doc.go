// Package activity looks at a PostgreSQL server's sessions from outside: how many slots there are, who has them,
// whether that is well, and, if not, which application is the cause and what to do. And it ends sessions, no
// more of them than it was asked to.
//
// It promises
//
//   - to need one connection at most, opened early and kept (Observer), or none, where a running server of ours
//     lends its own (Serve and Dial): so that it still sees when no slot is left.
//     CountLogins alone tries one login more, which it closes at once;
//   - to work on PostgreSQL 12 and later, with an ordinary role too, and to say what that role can't see;
//   - to keep looking and judging apart: a Snapshot is plain data, and what is made of it (Assess, Diagnose, Summarise,
//     PlanBudget) are functions of it that need no server;
//   - to end a session in the one statement that checks that it still is what was chosen (Signal), so that one
//     which became active in between goes on.
//
// The values of Status, Health, Diagnosis, Budget, Closing, Ending, Sample and Failure are what
// `ddtb db-connections --json` prints, and JSON.md tells of every field: fields are added, but not renamed or removed.
//
// It must not know strategies' insides, requests, pages or terminals.
package activity
