package db

import (
	"reflect"
	"testing"
)

func TestEveryCounterOfAStatIsAFigure(t *testing.T) {
	var s Stat
	listed := map[any]bool{}
	for _, f := range Figures {
		if f.Counter != nil {
			listed[f.Counter(&s)] = true
		}
	}
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		counter, is := v.Field(i).Addr().Interface().(*int64)
		if is && !listed[counter] {
			t.Errorf("Figures lack %s, so that it is lost in Totals", v.Type().Field(i).Name)
		}
	}
	if !listed[(*int64)(&s.WaitTotal)] {
		t.Error("Figures lack WaitTotal")
	}
}

func TestTheSumOfTwoStatsHasTheirCountersAndNoGauge(t *testing.T) {
	before := Stat{Strategy: Pool, Leases: 3, Acquired: 4, WaitTotal: 5, IdledOut: 6}
	if got, want := before.plus(before), (Stat{Strategy: Pool, Acquired: 8, WaitTotal: 10, IdledOut: 12}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
