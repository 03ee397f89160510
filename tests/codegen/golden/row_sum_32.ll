; kernel row_sum(x: float32[] r, z: float32[] w, r: size, c: size)
;   parallel i0 in 0 .. r grain 16
;     local r1: float32 = 0.0
;     vector i2 in 0 .. c
;       r1 add= x[add(mul(i0, c), i2)]
;     z[i0] = r1
@facula_threads = external global i64
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare <16 x float> @llvm.masked.load.v16f32.p0(ptr, i32, <16 x i1>, <16 x float>)
declare void @facula_parallel(ptr, ptr, i64)
define internal void @row_sum.par0(ptr %env, i64 %chunk, i64 %tid) nounwind {
entry:
  %v1 = getelementptr i64, ptr %env, i64 0
  %v2 = load i64, ptr %v1, align 8
  %v3 = getelementptr i64, ptr %env, i64 1
  %v4 = load i64, ptr %v3, align 8
  %v17 = getelementptr i64, ptr %env, i64 2
  %v18 = load i64, ptr %v17, align 8
  %v30 = getelementptr i64, ptr %env, i64 3
  %v31 = load ptr, ptr %v30, align 8
  %v107 = getelementptr i64, ptr %env, i64 4
  %v108 = load ptr, ptr %v107, align 8
  %v5 = call i64 @llvm.smin.i64(i64 %chunk, i64 %v4)
  %v6 = mul i64 %chunk, %v2
  %v7 = add i64 %v6, %v5
  %v8 = icmp slt i64 %chunk, %v4
  %v9 = zext i1 %v8 to i64
  %v10 = add i64 %v2, %v9
  %v11 = add i64 %v7, %v10
  %v12 = icmp slt i64 %v7, %v11
  %v19 = and i64 %v18, -64
  %v20 = icmp slt i64 0, %v19
  %v51 = sub i64 %v18, %v19
  %v52 = icmp slt i64 %v19, %v18
  %v77 = add i64 %v51, 15
  %v78 = lshr i64 %v77, 4
  %v79 = and i64 %v78, 1
  %v80 = icmp ne i64 %v79, 0
  %v85 = and i64 %v78, 2
  %v86 = icmp ne i64 %v85, 0
  br i1 %v12, label %b13, label %b14
b13:
  %v16 = phi i64 [ %v7, %entry ], [ %v110, %b54 ]
  %v29 = mul i64 %v16, %v18
  %v32 = getelementptr float, ptr %v31, i64 %v29
  br i1 %v20, label %b21, label %b22
b21:
  %v24 = phi i64 [ 0, %b13 ], [ %v45, %b21 ]
  %v25 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v35, %b21 ]
  %v26 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v38, %b21 ]
  %v27 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v41, %b21 ]
  %v28 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v44, %b21 ]
  %v33 = getelementptr float, ptr %v32, i64 %v24
  %v34 = load <16 x float>, ptr %v33, align 4
  %v35 = fadd <16 x float> %v25, %v34
  %v36 = getelementptr float, ptr %v33, i64 16
  %v37 = load <16 x float>, ptr %v36, align 4
  %v38 = fadd <16 x float> %v26, %v37
  %v39 = getelementptr float, ptr %v33, i64 32
  %v40 = load <16 x float>, ptr %v39, align 4
  %v41 = fadd <16 x float> %v27, %v40
  %v42 = getelementptr float, ptr %v33, i64 48
  %v43 = load <16 x float>, ptr %v42, align 4
  %v44 = fadd <16 x float> %v28, %v43
  %v45 = add i64 %v24, 64
  %v46 = icmp slt i64 %v45, %v19
  br i1 %v46, label %b21, label %b22
b22:
  %v47 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v35, %b21 ]
  %v48 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v38, %b21 ]
  %v49 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v41, %b21 ]
  %v50 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v44, %b21 ]
  br i1 %v52, label %b53, label %b54
b53:
  %v56 = phi i64 [ %v19, %b22 ], [ %v71, %b53 ]
  %v57 = phi <16 x float> [ %v47, %b22 ], [ %v58, %b53 ]
  %v58 = phi <16 x float> [ %v48, %b22 ], [ %v59, %b53 ]
  %v59 = phi <16 x float> [ %v49, %b22 ], [ %v60, %b53 ]
  %v60 = phi <16 x float> [ %v50, %b22 ], [ %v70, %b53 ]
  %v61 = sub i64 %v18, %v56
  %v62 = call i64 @llvm.smin.i64(i64 %v61, i64 16)
  %v63 = trunc i64 %v62 to i32
  %v64 = insertelement <16 x i32> poison, i32 %v63, i64 0
  %v65 = shufflevector <16 x i32> %v64, <16 x i32> poison, <16 x i32> zeroinitializer
  %v66 = icmp ult <16 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7, i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>, %v65
  %v67 = getelementptr float, ptr %v32, i64 %v56
  %v68 = call <16 x float> @llvm.masked.load.v16f32.p0(ptr %v67, i32 4, <16 x i1> %v66, <16 x float> zeroinitializer)
  %v69 = fadd <16 x float> %v57, %v68
  %v70 = select <16 x i1> %v66, <16 x float> %v69, <16 x float> %v57
  %v71 = add i64 %v56, 16
  %v72 = icmp slt i64 %v71, %v18
  br i1 %v72, label %b53, label %b54
b54:
  %v73 = phi <16 x float> [ %v47, %b22 ], [ %v58, %b53 ]
  %v74 = phi <16 x float> [ %v48, %b22 ], [ %v59, %b53 ]
  %v75 = phi <16 x float> [ %v49, %b22 ], [ %v60, %b53 ]
  %v76 = phi <16 x float> [ %v50, %b22 ], [ %v70, %b53 ]
  %v81 = select i1 %v80, <16 x float> %v76, <16 x float> %v73
  %v82 = select i1 %v80, <16 x float> %v73, <16 x float> %v74
  %v83 = select i1 %v80, <16 x float> %v74, <16 x float> %v75
  %v84 = select i1 %v80, <16 x float> %v75, <16 x float> %v76
  %v87 = select i1 %v86, <16 x float> %v83, <16 x float> %v81
  %v88 = select i1 %v86, <16 x float> %v84, <16 x float> %v82
  %v89 = select i1 %v86, <16 x float> %v81, <16 x float> %v83
  %v90 = select i1 %v86, <16 x float> %v82, <16 x float> %v84
  %v91 = fadd <16 x float> %v87, %v88
  %v92 = fadd <16 x float> %v89, %v90
  %v93 = fadd <16 x float> %v91, %v92
  %v94 = shufflevector <16 x float> %v93, <16 x float> poison, <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7>
  %v95 = shufflevector <16 x float> %v93, <16 x float> poison, <8 x i32> <i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>
  %v96 = fadd <8 x float> %v94, %v95
  %v97 = shufflevector <8 x float> %v96, <8 x float> poison, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %v98 = shufflevector <8 x float> %v96, <8 x float> poison, <4 x i32> <i32 4, i32 5, i32 6, i32 7>
  %v99 = fadd <4 x float> %v97, %v98
  %v100 = shufflevector <4 x float> %v99, <4 x float> poison, <2 x i32> <i32 0, i32 1>
  %v101 = shufflevector <4 x float> %v99, <4 x float> poison, <2 x i32> <i32 2, i32 3>
  %v102 = fadd <2 x float> %v100, %v101
  %v103 = extractelement <2 x float> %v102, i64 0
  %v104 = extractelement <2 x float> %v102, i64 1
  %v105 = fadd float %v103, %v104
  %v106 = fadd float 0x0000000000000000, %v105
  %v109 = getelementptr float, ptr %v108, i64 %v16
  store float %v106, ptr %v109, align 4
  %v110 = add i64 %v16, 1
  %v111 = icmp slt i64 %v110, %v11
  br i1 %v111, label %b13, label %b14
b14:
  ret void
}
define i64 @row_sum(ptr %args) nounwind {
entry:
  %v21 = alloca [5 x i64], align 8
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr i64, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v4 = getelementptr i64, ptr %args, i64 2
  %v5 = load i64, ptr %v4, align 8
  %v6 = getelementptr i64, ptr %args, i64 3
  %v7 = load i64, ptr %v6, align 8
  %v8 = icmp sgt i64 %v5, 0
  %v9 = load i64, ptr @facula_threads, align 8
  %v10 = icmp sgt i64 %v9, 1
  %v11 = shl i64 %v9, 2
  %v12 = select i1 %v10, i64 %v11, i64 1
  %v13 = sdiv i64 %v5, 16
  %v14 = call i64 @llvm.smin.i64(i64 %v13, i64 %v12)
  %v15 = call i64 @llvm.smax.i64(i64 %v14, i64 1)
  %v16 = sdiv i64 %v5, %v15
  %v17 = mul i64 %v16, %v15
  %v18 = sub i64 %v5, %v17
  br i1 %v8, label %b19, label %b20
b19:
  store i64 %v16, ptr %v21, align 8
  %v22 = getelementptr i64, ptr %v21, i64 1
  store i64 %v18, ptr %v22, align 8
  %v23 = getelementptr i64, ptr %v21, i64 2
  store i64 %v7, ptr %v23, align 8
  %v24 = getelementptr i64, ptr %v21, i64 3
  store ptr %v1, ptr %v24, align 8
  %v25 = getelementptr i64, ptr %v21, i64 4
  store ptr %v3, ptr %v25, align 8
  %v26 = icmp eq i64 %v15, 1
  br i1 %v26, label %b27, label %b29
b27:
  call void @row_sum.par0(ptr %v21, i64 0, i64 0)
  br label %b28
b29:
  call void @facula_parallel(ptr @row_sum.par0, ptr %v21, i64 %v15)
  br label %b28
b28:
  br label %b20
b20:
  ret i64 0
}
