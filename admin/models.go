package admin

import (
	"time"

	"ddtb/app/auth"
)

var (
	polls    = &App{"polls", "Polls"}
	authApp  = &App{"auth", "Authentication and Authorization"}
	adminApp = &App{"admin", "Administration"}
)

// models are the admin's models, in display order. To add one, declare its table here.
var models = []*Model{group, user, question, logEntry}

var question = &Model{
	App: polls, Name: "question", Singular: "question", Plural: "questions", Table: "polls_question",
	Label: "question_text", Order: "-pub_date",
	Fields: []*Field{
		{Name: "question_text", Kind: Text, Max: 200},
		{Name: "pub_date", Label: "Date published", Kind: DateTime, Help: "In UTC. The poll is not shown before."},
	},
	Fieldsets: []Fieldset{
		{Fields: []string{"question_text"}},
		{Title: "Date information", Fields: []string{"pub_date"}},
	},
	Columns: []Column{
		{Field: "question_text"},
		{Field: "pub_date"},
		{Field: "pub_date", Title: "Published recently?", Value: withinADay},
	},
	Filters: []string{"pub_date"}, Search: []string{"question_text"}, Hierarchy: "pub_date",
	Inlines: []Inline{{Model: choice, ForeignKey: "question_id", Extra: 3}},
}

var choice = &Model{
	App: polls, Name: "choice", Singular: "choice", Plural: "choices", Table: "polls_choice", Label: "choice_text",
	Fields: []*Field{
		{Name: "choice_text", Kind: Text, Max: 200},
		{Name: "votes", Kind: Integer, Max: maxInt4, Volatile: true, Default: func() any { return int64(0) }},
	},
	Fieldsets: []Fieldset{{Fields: []string{"choice_text", "votes"}}},
}

func withinADay(published any, now time.Time) bool {
	t, ok := published.(time.Time)
	return ok && !t.After(now) && !t.Before(now.AddDate(0, 0, -1))
}

var group = &Model{
	App: authApp, Name: "group", Singular: "group", Plural: "groups", Table: "auth_group",
	Label: "name", Order: "name",
	Fields: []*Field{
		{Name: "name", Kind: Text, Max: 150, Taken: "Group with this Name already exists."},
		{Name: "permissions", Optional: true, Kind: Many, Pairs: Pairs{
			Table: "auth_group_permissions", Own: "group_id", Other: "permission_id", SQL: permissionSQL,
		}},
	},
	Fieldsets: []Fieldset{{Fields: []string{"name", "permissions"}}},
	Columns:   []Column{{Field: "name"}}, Search: []string{"name"},
	Cascade: []Relation{{Table: "auth_user_groups", Column: "group_id"}},
	protect: protectGroup,
}

var user = &Model{
	App: authApp, Name: "user", Singular: "user", Plural: "users", Table: "auth_user",
	Label: "username", Order: "username",
	Fields: []*Field{
		{
			Name: "username", Kind: Text, Max: 150, Normal: auth.NormalUsername, Check: auth.ValidateUsername, Taken: "A user with that username already exists.",
			Help: "Required. 150 characters or fewer. Letters, digits and @/./+/-/_ only.",
		},
		{Name: "password", Kind: PasswordHash, ReadOnly: true},
		{Name: newPassword, Label: "Password", Kind: NewPassword},
		{Name: "first_name", Kind: Text, Max: 150, Optional: true},
		{Name: "last_name", Kind: Text, Max: 150, Optional: true},
		{Name: "email", Label: "Email address", Kind: Text, Max: 254, Type: "email", Normal: auth.NormalEmail, Check: checkEmail, Optional: true},
		{
			Name: "is_active", Label: "Active", Kind: Boolean, Default: func() any { return true },
			Help: "Whether this user may sign in. Unselect this instead of deleting accounts.",
		},
		{Name: "is_staff", Label: "Staff status", Kind: Boolean, Help: "Whether the user can log into this admin site."},
		{
			Name: "is_superuser", Label: "Superuser status", Kind: Boolean, SuperuserOnly: true,
			Help: "All permissions without assigning them. Only a superuser gives and takes this.",
		},
		{Name: "groups", Optional: true, Help: "The user gets all permissions of each of their groups.", Kind: Many, Pairs: Pairs{
			Table: "auth_user_groups", Own: "user_id", Other: "group_id", SQL: groupSQL + ` ORDER BY g.name, g.id`,
		}},
		{Name: "user_permissions", Optional: true, Help: "Permissions for this user alone.", Kind: Many, Pairs: Pairs{
			Table: "auth_user_user_permissions", Own: "user_id", Other: "permission_id", SQL: permissionSQL,
		}},
		{Name: "last_login", Kind: DateTime, ReadOnly: true},
		{Name: "date_joined", Kind: DateTime, ReadOnly: true, Default: func() any { return time.Now() }},
	},
	Fieldsets: []Fieldset{
		{Fields: []string{"username", "password"}},
		{Title: "Personal info", Fields: []string{"first_name", "last_name", "email"}},
		{Title: "Permissions", Fields: []string{"is_active", "is_staff", "is_superuser", "groups", "user_permissions"}},
		{Title: "Important dates", Help: "In UTC.", Fields: []string{"last_login", "date_joined"}},
	},
	AddFieldsets: []Fieldset{{
		Help:   "First, enter a username and password. Then you’ll be able to edit more user options.",
		Fields: []string{"username", newPassword},
	}},
	Columns: []Column{
		{Field: "username"}, {Field: "email"}, {Field: "first_name"}, {Field: "last_name"}, {Field: "is_staff"},
	},
	Filters: []string{"is_staff", "is_superuser", "is_active", "groups"},
	Search:  []string{"username", "first_name", "last_name", "email"},
	Cascade: []Relation{{Model: logEntry, Table: "django_admin_log", Column: "user_id"}, {Table: "ddtb_session", Column: "user_id"}},
	prepare: hashNewPassword, protect: protectUser,
}

var logEntry = &Model{
	App: adminApp, Name: "logentry", Singular: "log entry", Plural: "log entries", Table: "django_admin_log",
	Label: "object_repr", Order: "-action_time", ReadOnly: true,
	Fields: []*Field{
		{Name: "action_time", Kind: DateTime},
		{Name: "user_id", Label: "User", Kind: Reference, Target: Target{Table: "auth_user", Label: "username"}},
		{Name: "content_type_id", Label: "Content type", Kind: Reference, Target: Target{Table: "django_content_type", Label: "model"}},
		{Name: "object_id", Label: "Object id", Kind: Text},
		{Name: "object_repr", Label: "Object", Kind: Text},
		{Name: "action_flag", Label: "Action", Kind: Choice, Names: flagNames},
		{Name: "change_message", Kind: Log},
	},
	Fieldsets: []Fieldset{{Fields: []string{
		"action_time", "user_id", "content_type_id", "object_id", "object_repr", "action_flag", "change_message",
	}}},
	Columns: []Column{
		{Field: "action_time"},
		{Field: "user_id"},
		{Field: "content_type_id"},
		{Field: "object_repr"},
		{Field: "action_flag"},
		{Field: "change_message"},
	},
	Filters: []string{"action_time", "action_flag", "user_id", "content_type_id"},
	Search:  []string{"object_repr", "change_message"}, Hierarchy: "action_time",
}
