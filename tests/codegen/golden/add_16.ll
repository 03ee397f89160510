; kernel add(x: float32[] r, y: float32[] r, z: float32[] w, n: size)
;   vector i0 in 0 .. n
;     z[i0] = add(x[i0], y[i0])
declare i64 @llvm.smin.i64(i64, i64)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define i64 @add(ptr %args) nounwind {
entry:
  %stack = alloca [64 x i8], align 64
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr i64, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v4 = getelementptr i64, ptr %args, i64 2
  %v5 = load ptr, ptr %v4, align 8
  %v6 = getelementptr i64, ptr %args, i64 3
  %v7 = load i64, ptr %v6, align 8
  %v8 = and i64 %v7, -16
  %v9 = icmp slt i64 0, %v8
  br i1 %v9, label %b10, label %b11
b10:
  %v13 = phi i64 [ 0, %entry ], [ %v38, %b10 ]
  %v14 = getelementptr float, ptr %v1, i64 %v13
  %v15 = load <4 x float>, ptr %v14, align 4
  %v16 = getelementptr float, ptr %v3, i64 %v13
  %v17 = load <4 x float>, ptr %v16, align 4
  %v18 = fadd <4 x float> %v15, %v17
  %v19 = getelementptr float, ptr %v5, i64 %v13
  store <4 x float> %v18, ptr %v19, align 4
  %v20 = getelementptr float, ptr %v14, i64 4
  %v21 = load <4 x float>, ptr %v20, align 4
  %v22 = getelementptr float, ptr %v16, i64 4
  %v23 = load <4 x float>, ptr %v22, align 4
  %v24 = fadd <4 x float> %v21, %v23
  %v25 = getelementptr float, ptr %v19, i64 4
  store <4 x float> %v24, ptr %v25, align 4
  %v26 = getelementptr float, ptr %v14, i64 8
  %v27 = load <4 x float>, ptr %v26, align 4
  %v28 = getelementptr float, ptr %v16, i64 8
  %v29 = load <4 x float>, ptr %v28, align 4
  %v30 = fadd <4 x float> %v27, %v29
  %v31 = getelementptr float, ptr %v19, i64 8
  store <4 x float> %v30, ptr %v31, align 4
  %v32 = getelementptr float, ptr %v14, i64 12
  %v33 = load <4 x float>, ptr %v32, align 4
  %v34 = getelementptr float, ptr %v16, i64 12
  %v35 = load <4 x float>, ptr %v34, align 4
  %v36 = fadd <4 x float> %v33, %v35
  %v37 = getelementptr float, ptr %v19, i64 12
  store <4 x float> %v36, ptr %v37, align 4
  %v38 = add i64 %v13, 16
  %v39 = icmp slt i64 %v38, %v8
  br i1 %v39, label %b10, label %b11
b11:
  %v40 = icmp slt i64 %v8, %v7
  br i1 %v40, label %b41, label %b42
b41:
  %v44 = phi i64 [ %v8, %b11 ], [ %v58, %b41 ]
  %v45 = sub i64 %v7, %v44
  %v46 = call i64 @llvm.smin.i64(i64 %v45, i64 4)
  %v47 = trunc i64 %v46 to i32
  %v48 = insertelement <4 x i32> poison, i32 %v47, i64 0
  %v49 = shufflevector <4 x i32> %v48, <4 x i32> poison, <4 x i32> zeroinitializer
  %v50 = icmp ult <4 x i32> <i32 0, i32 1, i32 2, i32 3>, %v49
  %v51 = getelementptr float, ptr %v1, i64 %v44
  store <4 x float> zeroinitializer, ptr %stack, align 64
  %v52 = shl i64 %v46, 2
  call void @llvm.memcpy.p0.p0.i64(ptr %stack, ptr %v51, i64 %v52, i1 0)
  %v53 = load <4 x float>, ptr %stack, align 64
  %v54 = getelementptr float, ptr %v3, i64 %v44
  store <4 x float> zeroinitializer, ptr %stack, align 64
  call void @llvm.memcpy.p0.p0.i64(ptr %stack, ptr %v54, i64 %v52, i1 0)
  %v55 = load <4 x float>, ptr %stack, align 64
  %v56 = fadd <4 x float> %v53, %v55
  %v57 = getelementptr float, ptr %v5, i64 %v44
  store <4 x float> %v56, ptr %stack, align 64
  call void @llvm.memcpy.p0.p0.i64(ptr %v57, ptr %stack, i64 %v52, i1 0)
  %v58 = add i64 %v44, 4
  %v59 = icmp slt i64 %v58, %v7
  br i1 %v59, label %b41, label %b42
b42:
  ret i64 0
}
