package web

// Stylesheet is the layout's stylesheet, for a document that must need no other file.
func Stylesheet() string { return string(own.byPath["web/ddtb.css"].body) }
