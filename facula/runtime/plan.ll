; The Plan object that a launcher's builtin is bound to: part of launch.ll.

; new_plan(words, report): a builtin that runs the plan, holding on to both. With a third argument,
; of any value, it is a guard: see guards.ll.
define ptr @launch_new(ptr %module, ptr %args, i64 %nargs) {
entry:
  %bytes = load ptr, ptr %args
  %report_at = getelementptr ptr, ptr %args, i64 1
  %report = load ptr, ptr %report_at
  %size = call i64 @PyBytes_Size(ptr %bytes)
  %words = call ptr @PyBytes_AsString(ptr %bytes)
  %plan = call ptr @PyMem_Malloc(i64 %size)
  %no_plan = icmp eq ptr %plan, null
  br i1 %no_plan, label %no_memory, label %copy
copy:
  call void @llvm.memcpy.p0.p0.i64(ptr %plan, ptr %words, i64 %size, i1 false)
  %type = load ptr, ptr @launch_type
  %holder = call ptr @PyType_GenericAlloc(ptr %type, i64 0)
  %no_holder = icmp eq ptr %holder, null
  br i1 %no_holder, label %free_plan, label %fill
fill:
  call void @Py_IncRef(ptr %report)
  %plan_at = getelementptr %Holder, ptr %holder, i32 0, i32 1
  store ptr %plan, ptr %plan_at
  %keep_at = getelementptr %Holder, ptr %holder, i32 0, i32 2
  store ptr %report, ptr %keep_at
  %guards = icmp eq i64 %nargs, 3
  %method_at = select i1 %guards, ptr @launch_guarding, ptr @launch_method
  %method = load ptr, ptr %method_at
  %function = call ptr @PyCFunction_NewEx(ptr %method, ptr %holder, ptr null)
  call void @Py_DecRef(ptr %holder)
  ret ptr %function
free_plan:
  call void @PyMem_Free(ptr %plan)
  ret ptr null
no_memory:
  %e = call ptr @PyErr_NoMemory()
  ret ptr null
}

define void @launch_dealloc(ptr %self) {
  call void @PyObject_GC_UnTrack(ptr %self)
  %plan_at = getelementptr %Holder, ptr %self, i32 0, i32 1
  %plan = load ptr, ptr %plan_at
  call void @PyMem_Free(ptr %plan)
  %keep_at = getelementptr %Holder, ptr %self, i32 0, i32 2
  %report = load ptr, ptr %keep_at
  call void @Py_DecRef(ptr %report)
  %type = call ptr @slot(ptr %self, i64 $TYPE_AT)
  call void @PyObject_GC_Del(ptr %self)
  call void @Py_DecRef(ptr %type)
  ret void
}

define i32 @launch_traverse(ptr %self, ptr %visit, ptr %context) {
entry:
  %type = call ptr @slot(ptr %self, i64 $TYPE_AT)
  %stop_type = call i32 %visit(ptr %type, ptr %context)
  %stopped = icmp ne i32 %stop_type, 0
  br i1 %stopped, label %out, label %kept
kept:
  %keep_at = getelementptr %Holder, ptr %self, i32 0, i32 2
  %report = load ptr, ptr %keep_at
  %unset = icmp eq ptr %report, null
  br i1 %unset, label %out, label %visit_report
visit_report:
  %stop_report = call i32 %visit(ptr %report, ptr %context)
  br label %out
out:
  %stop = phi i32 [ %stop_type, %entry ], [ 0, %kept ], [ %stop_report, %visit_report ]
  ret i32 %stop
}
