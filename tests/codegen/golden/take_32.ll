; kernel take(x: float32[] r, at: int64[] r, y: float32[] w, n: size, size: size)
;   vector i0 in 0 .. n
;     let t1: int64 = at[i0]
;     let t2: bool = ult(t1, size)
;     check t2 else 2
;     y[i0] = x[t1 if t2 else 0]
declare i1 @llvm.vector.reduce.or.v4i1(<4 x i1>)
declare <4 x float> @llvm.masked.gather.v4f32.v4p0(<4 x ptr>, i32, <4 x i1>, <4 x float>)
declare <4 x i64> @llvm.masked.load.v4i64.p0(ptr, i32, <4 x i1>, <4 x i64>)
declare void @llvm.masked.store.v4f32.p0(<4 x float>, ptr, i32, <4 x i1>)
define i64 @take(ptr %args) nounwind {
entry:
  %status = alloca i64, align 8
  store i64 0, ptr %status, align 8
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr i64, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v4 = getelementptr i64, ptr %args, i64 2
  %v5 = load ptr, ptr %v4, align 8
  %v6 = getelementptr i64, ptr %args, i64 3
  %v7 = load i64, ptr %v6, align 8
  %v8 = getelementptr i64, ptr %args, i64 4
  %v9 = load i64, ptr %v8, align 8
  %v10 = and i64 %v7, -4
  %v11 = icmp slt i64 0, %v10
  %v18 = insertelement <4 x i64> poison, i64 %v9, i64 0
  %v19 = shufflevector <4 x i64> %v18, <4 x i64> poison, <4 x i32> zeroinitializer
  br i1 %v11, label %b12, label %b13
b12:
  %v15 = phi i64 [ 0, %entry ], [ %v28, %b24 ]
  %v16 = getelementptr i64, ptr %v3, i64 %v15
  %v17 = load <4 x i64>, ptr %v16, align 8
  %v20 = icmp ult <4 x i64> %v17, %v19
  %v21 = xor <4 x i1> %v20, splat (i1 true)
  %v22 = call i1 @llvm.vector.reduce.or.v4i1(<4 x i1> %v21)
  br i1 %v22, label %b23, label %b24
b23:
  store atomic i64 2, ptr %status monotonic, align 8
  br label %b24
b24:
  %v25 = getelementptr float, ptr %v1, <4 x i64> %v17
  %v26 = call <4 x float> @llvm.masked.gather.v4f32.v4p0(<4 x ptr> %v25, i32 4, <4 x i1> %v20, <4 x float> zeroinitializer)
  %v27 = getelementptr float, ptr %v5, i64 %v15
  store <4 x float> %v26, ptr %v27, align 4
  %v28 = add i64 %v15, 4
  %v29 = icmp slt i64 %v28, %v10
  br i1 %v29, label %b12, label %b13
b13:
  %v30 = icmp slt i64 %v10, %v7
  br i1 %v30, label %b31, label %b32
b31:
  %v33 = sub i64 %v7, %v10
  %v34 = insertelement <4 x i64> poison, i64 %v33, i64 0
  %v35 = shufflevector <4 x i64> %v34, <4 x i64> poison, <4 x i32> zeroinitializer
  %v36 = icmp ult <4 x i64> <i64 0, i64 1, i64 2, i64 3>, %v35
  %v37 = getelementptr i64, ptr %v3, i64 %v10
  %v38 = call <4 x i64> @llvm.masked.load.v4i64.p0(ptr %v37, i32 8, <4 x i1> %v36, <4 x i64> zeroinitializer)
  %v39 = icmp ult <4 x i64> %v38, %v19
  %v40 = xor <4 x i1> %v39, splat (i1 true)
  %v41 = and <4 x i1> %v40, %v36
  %v42 = call i1 @llvm.vector.reduce.or.v4i1(<4 x i1> %v41)
  br i1 %v42, label %b43, label %b44
b43:
  store atomic i64 2, ptr %status monotonic, align 8
  br label %b44
b44:
  %v45 = and <4 x i1> %v39, %v36
  %v46 = getelementptr float, ptr %v1, <4 x i64> %v38
  %v47 = call <4 x float> @llvm.masked.gather.v4f32.v4p0(<4 x ptr> %v46, i32 4, <4 x i1> %v45, <4 x float> zeroinitializer)
  %v48 = getelementptr float, ptr %v5, i64 %v10
  call void @llvm.masked.store.v4f32.p0(<4 x float> %v47, ptr %v48, i32 4, <4 x i1> %v36)
  br label %b32
b32:
  %v49 = load i64, ptr %status, align 8
  ret i64 %v49
}
