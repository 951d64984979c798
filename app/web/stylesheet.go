package web

// Stylesheet returns the layout's stylesheet, for a self-contained document.
func Stylesheet() string { return string(own.byPath["web/ddtb.css"].body) }
