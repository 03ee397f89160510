; kernel halves(x: bfloat16[] r, y: bfloat16[] w, n: size)
;   vector i0 in 0 .. n
;     y[i0] = mul(x[i0], x[i0])
declare i64 @llvm.smin.i64(i64, i64)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define i64 @halves(ptr %args) nounwind {
entry:
  %stack = alloca [64 x i8], align 64
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr i64, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v4 = getelementptr i64, ptr %args, i64 2
  %v5 = load i64, ptr %v4, align 8
  %v6 = and i64 %v5, -64
  %v7 = icmp slt i64 0, %v6
  br i1 %v7, label %b8, label %b9
b8:
  %v11 = phi i64 [ 0, %entry ], [ %v80, %b8 ]
  %v12 = getelementptr i16, ptr %v1, i64 %v11
  %v13 = load <16 x i16>, ptr %v12, align 2
  %v14 = zext <16 x i16> %v13 to <16 x i32>
  %v15 = shl <16 x i32> %v14, splat (i32 16)
  %v16 = bitcast <16 x i32> %v15 to <16 x float>
  %v17 = fmul <16 x float> %v16, %v16
  %v18 = bitcast <16 x float> %v17 to <16 x i32>
  %v19 = lshr <16 x i32> %v18, splat (i32 16)
  %v20 = and <16 x i32> %v19, splat (i32 1)
  %v21 = add <16 x i32> %v20, splat (i32 32767)
  %v22 = add <16 x i32> %v18, %v21
  %v23 = lshr <16 x i32> %v22, splat (i32 16)
  %v24 = fcmp uno <16 x float> %v17, %v17
  %v25 = or <16 x i32> %v19, splat (i32 64)
  %v26 = select <16 x i1> %v24, <16 x i32> %v25, <16 x i32> %v23
  %v27 = trunc <16 x i32> %v26 to <16 x i16>
  %v28 = getelementptr i16, ptr %v3, i64 %v11
  store <16 x i16> %v27, ptr %v28, align 2
  %v29 = getelementptr i16, ptr %v12, i64 16
  %v30 = load <16 x i16>, ptr %v29, align 2
  %v31 = zext <16 x i16> %v30 to <16 x i32>
  %v32 = shl <16 x i32> %v31, splat (i32 16)
  %v33 = bitcast <16 x i32> %v32 to <16 x float>
  %v34 = fmul <16 x float> %v33, %v33
  %v35 = bitcast <16 x float> %v34 to <16 x i32>
  %v36 = lshr <16 x i32> %v35, splat (i32 16)
  %v37 = and <16 x i32> %v36, splat (i32 1)
  %v38 = add <16 x i32> %v37, splat (i32 32767)
  %v39 = add <16 x i32> %v35, %v38
  %v40 = lshr <16 x i32> %v39, splat (i32 16)
  %v41 = fcmp uno <16 x float> %v34, %v34
  %v42 = or <16 x i32> %v36, splat (i32 64)
  %v43 = select <16 x i1> %v41, <16 x i32> %v42, <16 x i32> %v40
  %v44 = trunc <16 x i32> %v43 to <16 x i16>
  %v45 = getelementptr i16, ptr %v28, i64 16
  store <16 x i16> %v44, ptr %v45, align 2
  %v46 = getelementptr i16, ptr %v12, i64 32
  %v47 = load <16 x i16>, ptr %v46, align 2
  %v48 = zext <16 x i16> %v47 to <16 x i32>
  %v49 = shl <16 x i32> %v48, splat (i32 16)
  %v50 = bitcast <16 x i32> %v49 to <16 x float>
  %v51 = fmul <16 x float> %v50, %v50
  %v52 = bitcast <16 x float> %v51 to <16 x i32>
  %v53 = lshr <16 x i32> %v52, splat (i32 16)
  %v54 = and <16 x i32> %v53, splat (i32 1)
  %v55 = add <16 x i32> %v54, splat (i32 32767)
  %v56 = add <16 x i32> %v52, %v55
  %v57 = lshr <16 x i32> %v56, splat (i32 16)
  %v58 = fcmp uno <16 x float> %v51, %v51
  %v59 = or <16 x i32> %v53, splat (i32 64)
  %v60 = select <16 x i1> %v58, <16 x i32> %v59, <16 x i32> %v57
  %v61 = trunc <16 x i32> %v60 to <16 x i16>
  %v62 = getelementptr i16, ptr %v28, i64 32
  store <16 x i16> %v61, ptr %v62, align 2
  %v63 = getelementptr i16, ptr %v12, i64 48
  %v64 = load <16 x i16>, ptr %v63, align 2
  %v65 = zext <16 x i16> %v64 to <16 x i32>
  %v66 = shl <16 x i32> %v65, splat (i32 16)
  %v67 = bitcast <16 x i32> %v66 to <16 x float>
  %v68 = fmul <16 x float> %v67, %v67
  %v69 = bitcast <16 x float> %v68 to <16 x i32>
  %v70 = lshr <16 x i32> %v69, splat (i32 16)
  %v71 = and <16 x i32> %v70, splat (i32 1)
  %v72 = add <16 x i32> %v71, splat (i32 32767)
  %v73 = add <16 x i32> %v69, %v72
  %v74 = lshr <16 x i32> %v73, splat (i32 16)
  %v75 = fcmp uno <16 x float> %v68, %v68
  %v76 = or <16 x i32> %v70, splat (i32 64)
  %v77 = select <16 x i1> %v75, <16 x i32> %v76, <16 x i32> %v74
  %v78 = trunc <16 x i32> %v77 to <16 x i16>
  %v79 = getelementptr i16, ptr %v28, i64 48
  store <16 x i16> %v78, ptr %v79, align 2
  %v80 = add i64 %v11, 64
  %v81 = icmp slt i64 %v80, %v6
  br i1 %v81, label %b8, label %b9
b9:
  %v82 = icmp slt i64 %v6, %v5
  br i1 %v82, label %b83, label %b84
b83:
  %v86 = phi i64 [ %v6, %b9 ], [ %v115, %b83 ]
  %v87 = sub i64 %v5, %v86
  %v88 = call i64 @llvm.smin.i64(i64 %v87, i64 16)
  %v89 = trunc i64 %v88 to i16
  %v90 = insertelement <16 x i16> poison, i16 %v89, i64 0
  %v91 = shufflevector <16 x i16> %v90, <16 x i16> poison, <16 x i32> zeroinitializer
  %v92 = icmp ult <16 x i16> <i16 0, i16 1, i16 2, i16 3, i16 4, i16 5, i16 6, i16 7, i16 8, i16 9, i16 10, i16 11, i16 12, i16 13, i16 14, i16 15>, %v91
  %v93 = getelementptr i16, ptr %v1, i64 %v86
  store <16 x i16> zeroinitializer, ptr %stack, align 64
  %v94 = shl i64 %v88, 1
  call void @llvm.memcpy.p0.p0.i64(ptr %stack, ptr %v93, i64 %v94, i1 0)
  %v95 = load <16 x i16>, ptr %stack, align 64
  store <16 x i16> zeroinitializer, ptr %stack, align 64
  call void @llvm.memcpy.p0.p0.i64(ptr %stack, ptr %v93, i64 %v94, i1 0)
  %v96 = load <16 x i16>, ptr %stack, align 64
  %v97 = zext <16 x i16> %v95 to <16 x i32>
  %v98 = shl <16 x i32> %v97, splat (i32 16)
  %v99 = bitcast <16 x i32> %v98 to <16 x float>
  %v100 = zext <16 x i16> %v96 to <16 x i32>
  %v101 = shl <16 x i32> %v100, splat (i32 16)
  %v102 = bitcast <16 x i32> %v101 to <16 x float>
  %v103 = fmul <16 x float> %v99, %v102
  %v104 = bitcast <16 x float> %v103 to <16 x i32>
  %v105 = lshr <16 x i32> %v104, splat (i32 16)
  %v106 = and <16 x i32> %v105, splat (i32 1)
  %v107 = add <16 x i32> %v106, splat (i32 32767)
  %v108 = add <16 x i32> %v104, %v107
  %v109 = lshr <16 x i32> %v108, splat (i32 16)
  %v110 = fcmp uno <16 x float> %v103, %v103
  %v111 = or <16 x i32> %v105, splat (i32 64)
  %v112 = select <16 x i1> %v110, <16 x i32> %v111, <16 x i32> %v109
  %v113 = trunc <16 x i32> %v112 to <16 x i16>
  %v114 = getelementptr i16, ptr %v3, i64 %v86
  store <16 x i16> %v113, ptr %stack, align 64
  call void @llvm.memcpy.p0.p0.i64(ptr %v114, ptr %stack, i64 %v94, i1 0)
  %v115 = add i64 %v86, 16
  %v116 = icmp slt i64 %v115, %v5
  br i1 %v116, label %b83, label %b84
b84:
  ret i64 0
}
