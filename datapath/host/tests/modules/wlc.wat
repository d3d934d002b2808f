;; wlc as a plugin: the least (256 * active + total) / weight among usable servers; the first of equals.
(module
  (memory (export "memory") 1)
  ;; TableHead at 1024, rows from 1056 on; Flow at 64.
  (data (i32.const 1024) "XVS1\01\00\00\00\00\00\00\00\00\00\00\00\00\04\00\00\20\00\00\00")
  (func (export "xvs_abi_version") (result i32) i32.const 1)
  (func (export "xvs_table") (result i32) i32.const 1024)
  (func (export "xvs_io") (result i32) i32.const 64)
  (func (export "xvs_config") (result i32) i32.const 0)
  (func (export "xvs_needs") (result i32) i32.const 1)
  (func (export "xvs_schedule") (result i32)
    (local $at i32) (local $end i32) (local $best i32) (local $load i64) (local $weight i64)
    (local $best_load i64) (local $best_weight i64)
    (local.set $best (i32.const -1))
    (local.set $at (i32.const 1056))
    (local.set $end (i32.add (i32.const 1056) (i32.shl (i32.load (i32.const 1036)) (i32.const 5))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (if (i32.and (i32.load offset=12 (local.get $at)) (i32.const 1)) (then
          (local.set $weight (i64.load32_s (local.get $at)))
          (local.set $load (i64.add (i64.shl (i64.load32_u offset=4 (local.get $at)) (i64.const 8))
            (i64.load32_u offset=8 (local.get $at))))
          (if (i32.or (i32.lt_s (local.get $best) (i32.const 0))
              (i64.gt_u (i64.mul (local.get $best_load) (local.get $weight))
                (i64.mul (local.get $load) (local.get $best_weight))))
            (then
              (local.set $best (i32.shr_u (i32.sub (local.get $at) (i32.const 1056)) (i32.const 5)))
              (local.set $best_load (local.get $load))
              (local.set $best_weight (local.get $weight))))))
        (local.set $at (i32.add (local.get $at) (i32.const 32)))
        (br $next)))
    (local.get $best))
)
