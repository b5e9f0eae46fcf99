package taskgrant.lib

# METADATA
# title: True if a time lies in [start, end); all three are RFC 3339
time_between(time_, start, end) if {
	at := time.parse_rfc3339_ns(time_)
	at >= time.parse_rfc3339_ns(start)
	at < time.parse_rfc3339_ns(end)
}

# METADATA
# title: True if a time is between two hours of the day in a time zone
# description: '`hours_between(t, "22:00", "06:00", "Europe/Berlin")` crosses midnight. The end is not included.'
hours_between(time_, start, end, zone) if {
	_minutes(start) <= _minutes(end)
	at := _minute_of_day(time_, zone)
	at >= _minutes(start)
	at < _minutes(end)
}

hours_between(time_, start, end, zone) if {
	_minutes(start) > _minutes(end)
	at := _minute_of_day(time_, zone)
	_outside(at, _minutes(end), _minutes(start))
}

_outside(at, _, start) if at >= start

_outside(at, end, _) if at < end

# METADATA
# title: 'True if a time is on one of these weekdays in a time zone: `{"Monday", "Tuesday"}`'
weekday_in(time_, days, zone) if time.weekday([time.parse_rfc3339_ns(time_), zone]) in days

_minute_of_day(time_, zone) := (hour * 60) + minute if {
	[hour, minute, _] := time.clock([time.parse_rfc3339_ns(time_), zone])
}

# Ill-written hours are an error of the builtin, not "never": strict evaluation makes them a refusal that says so.
_minutes(text) := (to_number(hour) * 60) + to_number(minute) if [hour, minute] := split(text, ":")
