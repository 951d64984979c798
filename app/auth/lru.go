package auth

import "container/list"

// lru is a map of bounded size that evicts the least recently used entry. It is not safe for concurrent use.
type lru[K comparable, V any] struct {
	max   int
	order *list.List // of pair[K, V], most recently used first
	at    map[K]*list.Element
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](size int) *lru[K, V] {
	return &lru[K, V]{max: size, order: list.New(), at: make(map[K]*list.Element)}
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	e, ok := l.at[k]
	if !ok {
		return v, false
	}
	l.order.MoveToFront(e)
	return e.Value.(pair[K, V]).value, true
}

func (l *lru[K, V]) put(k K, v V) {
	if e, ok := l.at[k]; ok {
		e.Value = pair[K, V]{k, v}
		l.order.MoveToFront(e)
		return
	}
	l.at[k] = l.order.PushFront(pair[K, V]{k, v})
	if l.order.Len() > l.max {
		l.remove(l.order.Back().Value.(pair[K, V]).key)
	}
}

func (l *lru[K, V]) remove(k K) {
	if e, ok := l.at[k]; ok {
		l.order.Remove(e)
		delete(l.at, k)
	}
}

func (l *lru[K, V]) clear() {
	l.order.Init()
	clear(l.at)
}
