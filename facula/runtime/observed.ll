; What the observed launcher has beyond launch.ll, of which it is a variant: after a launch it calls
; launch_observer(report, notes, arguments). Notes, which follow the table of values, are times in
; nanoseconds: of entry, before the first step, after each step, of the end.

@launch_observer = global ptr null
declare ptr @PyBytes_FromStringAndSize(ptr, i64)
declare void @PyErr_WriteUnraisable(ptr)
$DECLARE_NOW

define internal i64 @now() alwaysinline {
  $NOW
}

; Note the time in the place of that number.
define internal void @note(ptr %plan, ptr %values, i64 %number) alwaysinline {
  %time = call i64 @now()
  %first = call i64 @field(ptr %plan, i64 $NVALUES)
  %place = add i64 %first, %number
  %at = getelementptr i64, ptr %values, i64 %place
  store i64 %time, ptr %at
  ret void
}

define internal void @tell(ptr %self, ptr %plan, ptr %values, ptr %args, i64 %nargs) noinline {
entry:
  %nsteps = call i64 @field(ptr %plan, i64 $NSTEPS)
  %last = add i64 %nsteps, 2
  call void @note(ptr %plan, ptr %values, i64 %last)
  %count = add i64 %nsteps, 3
  %bytes = shl i64 %count, 3
  %first = call i64 @field(ptr %plan, i64 $NVALUES)
  %at = getelementptr i64, ptr %values, i64 %first
  %observer = load ptr, ptr @launch_observer
  %report_at = getelementptr %Holder, ptr %self, i32 0, i32 2
  %report = load ptr, ptr %report_at
  %notes = call ptr @PyBytes_FromStringAndSize(ptr %at, i64 %bytes)
  %no_notes = icmp eq ptr %notes, null
  br i1 %no_notes, label %failed, label %noted
noted:
  %tuple = call ptr @make_tuple(ptr %args, i64 %nargs, i1 true)
  %no_tuple = icmp eq ptr %tuple, null
  br i1 %no_tuple, label %untold, label %call
call:
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %observer, ptr %report,
      ptr %notes, ptr %tuple, ptr null)
  call void @Py_DecRef(ptr %tuple)
  call void @Py_DecRef(ptr %notes)
  %raised = icmp eq ptr %answer, null
  br i1 %raised, label %failed, label %told
told:
  call void @Py_DecRef(ptr %answer)
  ret void
untold:
  call void @Py_DecRef(ptr %notes)
  br label %failed
failed:
  ; The launch itself went well: its caller shall not be told of what an observer does wrong.
  call void @PyErr_WriteUnraisable(ptr %observer)
  ret void
}
